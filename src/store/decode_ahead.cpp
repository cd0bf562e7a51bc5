// SPDX-License-Identifier: Apache-2.0
#include "store/decode_ahead.hpp"

#include <algorithm>
#include <exception>

#include "coral/base/log.hpp"
#include "coral/base/thread_pool.hpp"

namespace coral::store {

DecodeAhead::DecodeAhead(SegmentReader& reader, std::size_t threads) : reader_(reader) {
    for (std::size_t i = 0; i < std::max<std::size_t>(threads, 1); ++i) threads_.emplace_back([this] { run(); });
}

DecodeAhead::~DecodeAhead() {
    {
        std::lock_guard lock(mutex_);
        stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
}

std::uint64_t DecodeAhead::submit(const SegmentId& segment, std::uint64_t offset, std::uint64_t length) {
    const std::uint64_t begin = offset, end = offset + length;
    while (offset < end) {
        std::uint64_t number = offset / kPiece, next = std::min(end, (number + 1) * kPiece);
        if (!reader_.cache().reserve_ahead(next - offset)) break;
        bool wake = false, taken = false;
        {
            std::lock_guard lock(mutex_);
            taken = !stop_ && waiting_.insert({segment, number}).second;
            if (taken) {
                queue_.push_back({segment, offset, next - offset});
                count();
                wake = idle_ > 0;
            }
        }
        if (!taken) reader_.cache().release_ahead(next - offset);
        if (wake) wake_.notify_one();
        offset = next;
    }
    return offset - begin;
}

void DecodeAhead::claim(const SegmentId& segment, std::uint64_t offset, std::uint64_t length) {
    if (open_ == 0 || length == 0) return;
    std::unique_lock lock(mutex_);
    for (std::uint64_t number = offset / kPiece; number <= (offset + length - 1) / kPiece; ++number) {
        const Key key{segment, number};
        waiting_.erase(key);
        count();
        done_.wait(lock, [&] { return std::find(running_.begin(), running_.end(), key) == running_.end(); });
    }
}

void DecodeAhead::run() {
    set_thread_name("coral-ahead");
    std::unique_lock lock(mutex_);
    while (true) {
        ++idle_;
        wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
        --idle_;
        if (stop_) return;
        const Piece piece = queue_.front();
        queue_.pop_front();
        const Key key{piece.segment, piece.offset / kPiece};
        const bool wanted = waiting_.erase(key) != 0;
        if (wanted) running_.push_back(key);
        lock.unlock();
        if (wanted) decode(piece);
        reader_.cache().release_ahead(piece.length);
        lock.lock();
        if (!wanted) continue;
        running_.erase(std::find(running_.begin(), running_.end(), key));
        count();
        done_.notify_all();
    }
}

// What cannot be decoded is told to who reads it.
void DecodeAhead::decode(const Piece& piece) {
    try {
        (void)reader_.warm(piece.segment, piece.offset, piece.length);
    } catch (const std::exception& e) {
        log_debug("reading ahead: {}", e.what());
    }
}

}  // namespace coral::store
