// SPDX-License-Identifier: Apache-2.0
// Ingest: the bytes of one file become segments and a FILE record. Parse by positional reads, then one pass in file
// order that hashes, cuts, finds bases and encodes in parallel. Memory is bounded whatever the file's size.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

#include "coral/base/thread_pool.hpp"
#include "coral/formats/layout.hpp"
#include "coral/store/store.hpp"

namespace coral::repo {

// ext4's own limit. Each 16 MiB cost some memory, so a hole of petabytes, which other file systems allow, would take
// all of it. Longer ones are kTooLarge, here and to whoever writes in a worktree.
inline constexpr std::uint64_t kMostFileBytes = std::uint64_t{16} << 40;

class BaseIndex;  // src/repo/base_index.hpp: finds tensors that look alike

// Remembers, per worktree, where tensors of a name and dtype were stored last, so that the next save can refer to them.
// Thread-safe. Bounded: the least recently stored are forgotten.
class BaseMap {
  public:
    struct Entry {
        std::vector<SegmentId> segments;  // in order; each kMaxSegment long but the last, unless `lengths` are given
        std::uint64_t length = 0;
        std::vector<std::uint64_t> lengths;  // of the segments, where the tensor was cut at what was stored before
    };
    // The newest under this name; else one of the same length under the name that a wrapper around the module (or none)
    // gives it.
    std::optional<Entry> find(const std::string& name, std::uint8_t dtype, std::uint64_t length) const;
    // The same tensor as floats of another type: its entry and that type.
    struct Cast {
        Entry entry;
        std::uint8_t dtype = 0;
    };
    std::optional<Cast> find_cast(const std::string& name, std::uint8_t dtype, std::uint64_t length) const;
    void put(const std::string& name, std::uint8_t dtype, Entry entry);
    // All tensors of a stored file (a commit that is checked out, the last save before a restart).
    void learn(const store::FileRecord& record);

  private:
    static constexpr std::size_t kLimit = 200'000;
    mutable std::mutex mutex_;
    std::unordered_map<std::string, Entry> map_;
    std::unordered_map<std::string, std::string> aliases_;  // key of a shorter name -> key of map_
};

struct IngestProgress {
    std::atomic<std::uint64_t> bytes_read{0};  // for progress bars
    std::atomic<bool> cancel{false};           // the file is being written again, or the daemon stops
};

struct Ingested {
    FileId file;
    std::uint64_t size = 0;
    std::uint64_t stored_bytes = 0;  // appended for it
    bool existed = false;            // the very file was there
};

// Bytes [offset, offset + length) of a source are probably those of a stored file from `from` on. Probably: what is
// read is what counts.
struct KnownRange {
    std::uint64_t offset = 0, length = 0;
    std::shared_ptr<const store::FileRecord> record;
    std::uint64_t from = 0;
};

class Ingestor {
  public:
    // `pool` is shared; at most `in_flight` segment buffers (16 MiB each) per file.
    // `similar` is the repository's.
    Ingestor(store::Store& store, BaseIndex& similar, ThreadPool& pool, std::size_t in_flight);
    // Thread-safe. kConflict when cancelled or when the source changed its size meanwhile.
    // `known`: in order, apart from each other.
    Result<Ingested> ingest(const formats::ByteSource& source, BaseMap& bases, IngestProgress* progress = nullptr,
                            const std::vector<KnownRange>& known = {});

  private:
    store::Store& store_;
    BaseIndex& similar_;
    ThreadPool& pool_;
    std::size_t in_flight_;
};

// A file of the operating system as a source.
class FileSource final : public formats::ByteSource {
  public:
    FileSource(std::shared_ptr<File> file, std::uint64_t size) : file_(std::move(file)), size_(size) {}
    std::uint64_t size() const override { return size_; }
    Status read_at(std::uint64_t offset, MutableBytes out) const override;

  private:
    std::shared_ptr<File> file_;
    std::uint64_t size_;
};

}  // namespace coral::repo
