// SPDX-License-Identifier: Apache-2.0
// The store behind coral/store/store.hpp. Lock order is in README.md.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_set>
#include <vector>

#include "coral/base/lru.hpp"
#include "coral/store/store.hpp"
#include "store/decode_ahead.hpp"
#include "store/group_buffer.hpp"
#include "store/index.hpp"
#include "store/pack_writer.hpp"
#include "store/segment_reader.hpp"
#include "store/session_lock.hpp"

namespace coral::store {

// Up to 1 MiB, chunks of 64 KiB: tables of their own for rows that differ, 0.1–0.4 % smaller, and less to read for a
// few bytes. Beyond, what every chunk costs to decode weighs more.
inline std::uint8_t chunk_log2_for(Bytes raw) {
    return raw.size() <= (1u << 20) ? std::uint8_t{16} : codec::kChunkLog2;
}

class StoreImpl final : public Store {
  public:
    static Result<std::unique_ptr<Store>> start(Os& os, const std::string& dir, const Uuid& repo,
                                                const StoreOptions& options);
    ~StoreImpl() override;

    Result<bool> contains(Kind kind, const AnyId& id) override;
    Result<Put> put_segment(const SegmentId& id, Bytes raw, codec::Hint hint,
                            std::span<const BaseCandidate> candidates) override;
    Result<Rewrite> rewrite_segment(const SegmentId& id, Bytes raw, codec::Hint hint,
                                    std::span<const BaseCandidate> candidates, const RewriteLimits& limits,
                                    bool dry_run) override;
    Result<RewriteLimits> rewrite_limits() override;
    Result<Put> put_file(const FileRecord& record) override;
    Result<Put> put_object(Kind kind, const AnyId& id, Bytes raw) override;
    Status put_ref_hint(const RefHint& hint) override;
    Status put_work_hint(const WorkHint& hint) override;
    Status sync() override;
    Result<Session> session() override;
    Status tidy() override;

    Result<std::shared_ptr<const FileRecord>> file(const FileId& id) override;
    Result<std::size_t> read_file(const FileRecord& record, std::uint64_t offset, MutableBytes out) override;
    std::uint64_t prefetch(std::shared_ptr<const FileRecord> record, std::uint64_t offset,
                           std::uint64_t length) override;
    Result<Buffer> read_segment(const SegmentId& id) override;
    Result<Buffer> object(Kind kind, const AnyId& id) override;
    Result<std::vector<AnyId>> find_prefix(Kind kind, std::string_view prefix, std::size_t limit) override;
    Result<SegmentInfo> segment_info(const SegmentId& id) override;
    Result<std::uint64_t> stored_bytes_of(const FileRecord& record) override;

    Result<StoreStats> stats() override;
    Result<std::vector<Problem>> verify(bool full,
                                        const std::function<void(std::uint64_t, std::uint64_t)>& progress) override;
    Status reindex(const std::function<void(std::uint64_t, std::uint64_t)>& progress) override;
    Status scan(const std::function<Status(const Uuid& pack, const RecordView&)>& visit) override;
    Result<CollectReport> collect(LiveSet& live, const CollectOptions& options) override;
    Status seal() override;

  private:
    friend class Verifier;
    friend class Collector;
    struct Packed {
        Buffer specific, payload;
        std::uint16_t flags = 0;
    };
    StoreImpl(Os& os, const std::string& dir, const Uuid& repo, const StoreOptions& options);

    Status writable() const;
    Result<Put> put_large(const SegmentId& id, Bytes raw, codec::Hint hint, std::span<const BaseCandidate> candidates);
    Result<std::vector<codec::Base>> load_bases(std::span<const BaseCandidate> candidates, codec::Hint hint,
                                                std::deque<Buffer>& bytes, std::uint32_t below = codec::kMaxDepth);
    Result<SegmentId> shallow(SegmentId id, std::uint32_t below);
    // Bases of depth less than `below`.
    Result<bool> load_base(const BaseCandidate& candidate, std::vector<codec::Base>& bases, std::deque<Buffer>& bytes,
                           std::uint32_t below);
    Result<bool> formulas_end(const BaseCandidate& candidate, std::uint32_t below);
    Status load_inputs(const BaseCandidate& candidate, std::vector<codec::Base>& bases, std::deque<Buffer>& bytes,
                       std::uint32_t below);
    Status load_second(const BaseCandidate& candidate, std::vector<codec::Base>& bases, std::deque<Buffer>& bytes,
                       std::uint32_t below);
    // The smallest of all encodings against one or two of the candidates.
    Result<std::optional<codec::Encoded>> encode_best(Bytes raw, codec::Hint hint,
                                                      std::span<const BaseCandidate> candidates, std::uint32_t below);
    Status read_pieces(const SegmentId& id, std::uint64_t offset, MutableBytes out);
    Result<std::size_t> read_extents(const FileRecord& record, std::uint64_t offset, MutableBytes out);
    Result<Packed> pack_payload(Kind kind, Bytes raw, const FileRecord* file);
    Result<Buffer> unpack_payload(PackFile& pack, std::uint64_t offset, const RecordHeader& header, Bytes specific,
                                  Buffer payload);
    Result<Buffer> load_object(const Row& row);
    Result<FileRecord> load_file(const FileId& id, const Row& row);
    Status put_hint(Kind kind, Bytes specific, Buffer payload, const FileId* needs);
    Status after_put();
    // For the length of one put.
    Result<Session> join();
    Status forget_gone();
    // It is there, and so is all that it takes to decode it.
    Result<bool> whole(const SegmentId& id);
    Result<bool> has_segments(const FileRecord& record);
    std::size_t first_extent(const FileRecord& record, std::uint64_t offset, std::uint64_t& position) const;

    Os& os_;
    const std::string dir_;
    const Uuid repo_;
    const StoreOptions options_;
    PackSet packs_;
    std::unique_ptr<Index> index_;
    std::unique_ptr<PackWriter> writer_;
    std::unique_ptr<GroupBuffer> groups_;
    std::unique_ptr<SegmentReader> reader_;
    Lru<FileId, const FileRecord> files_;
    std::unique_ptr<SessionLock> sessions_;  // none of a store that is open for reading

    std::mutex puts_mutex_;  // guards putting_; a leaf
    std::condition_variable put_done_;
    std::unordered_set<SegmentId> putting_;  // being encoded: a second put of the same waits for the first

    std::atomic<std::size_t> reading_{0};  // how many are in read_pieces
    std::unique_ptr<DecodeAhead> ahead_;   // last: its threads use all of the above
};

}  // namespace coral::store
