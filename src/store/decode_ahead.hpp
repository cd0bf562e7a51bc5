// SPDX-License-Identifier: Apache-2.0
// Decodes what will probably be read next, on all cores, in the order in which it was asked for, within the cache's
// budget for chunks that nobody has read yet.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_set>
#include <vector>

#include "store/segment_reader.hpp"

namespace coral::store {

class DecodeAhead {
  public:
    DecodeAhead(SegmentReader& reader, std::size_t threads);
    ~DecodeAhead();  // what waits is dropped
    DecodeAhead(const DecodeAhead&) = delete;
    DecodeAhead& operator=(const DecodeAhead&) = delete;

    // Bytes [offset, offset + length) of a segment. How many of them, from the beginning, were taken: fewer when the
    // budget is used up.
    std::uint64_t submit(const SegmentId& segment, std::uint64_t offset, std::uint64_t length);
    // Threads that have nothing to do; a reader of several chunks may have them help.
    std::size_t idle() const { return idle_.load(std::memory_order_relaxed); }
    // A reader is about to read this: what has not been begun of it is left to him, so that he never waits for a thread
    // that has other chunks to do first; what has been begun he waits for, so that nothing is decoded twice.
    void claim(const SegmentId& segment, std::uint64_t offset, std::uint64_t length);

    // A piece of work: as much as a chunk.
    static constexpr std::uint64_t kPiece = codec::kChunkSize;

  private:
    struct Piece {
        SegmentId segment;
        std::uint64_t offset = 0, length = 0;
    };
    struct Key {
        SegmentId segment;
        std::uint64_t piece = 0;
        bool operator==(const Key&) const = default;
    };
    struct KeyHash {
        std::size_t operator()(const Key& key) const {
            return std::hash<SegmentId>()(key.segment) ^ (key.piece * 0x9e3779b97f4a7c15u);
        }
    };
    void run();
    void count() { open_ = waiting_.size() + running_.size(); }
    void decode(const Piece& piece);

    SegmentReader& reader_;
    std::mutex mutex_;  // guards the rest; a leaf
    std::condition_variable wake_, done_;
    std::deque<Piece> queue_;                   // also what was claimed meanwhile
    std::unordered_set<Key, KeyHash> waiting_;  // what of it still has to be done
    std::vector<Key> running_;                  // one for each thread at most
    std::atomic<std::size_t> idle_{0};
    std::atomic<std::size_t> open_{0};  // how many are waiting or running, for those who need not look
    bool stop_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace coral::store
