// SPDX-License-Identifier: Apache-2.0
// The staging file of one inode: bytes that were written and are not (wholly) in packs yet. Either whole, or an overlay
// over a stored file: then only the units of 256 KiB that were written are in it. The staging file's own size is the
// logical size.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "coral/base/lru.hpp"
#include "coral/base/os.hpp"
#include "coral/store/store.hpp"

namespace coral::repo {

// Descriptors of staging files: opened when they are needed, the ones unused longest closed. However many files wait
// for their ingest, or are open at once, their number is bounded. (What write-back reports to a descriptor that was
// closed in between, the kernel reports to the next one that is opened.) Thread-safe; no lock is held while a file is
// opened.
class StagingFiles {
  public:
    explicit StagingFiles(Os& os) : os_(os) {}
    Result<std::shared_ptr<File>> get(const Uuid& uuid, const std::string& path);
    void put(const Uuid& uuid, std::shared_ptr<File> file) { open_.put(uuid, std::move(file), 1); }
    void close(const Uuid& uuid) { open_.erase(uuid); }

  private:
    static constexpr std::uint64_t kMaxOpen = 256;
    Os& os_;
    Lru<Uuid, File> open_{kMaxOpen};
};

// While it lives, nobody unlinks the file below (Worktree::Impl::orphans).
class StagedFile {
  public:
    static constexpr std::uint64_t kUnit = 256u << 10;

    // What lies under an overlay, and how to make a unit's arrival permanent before it is written to.
    struct Overlay {
        store::Store* store = nullptr;
        std::shared_ptr<const store::FileRecord> record;
        std::uint64_t limit = 0;  // smallest size since the overlay began
        std::function<Status(const std::vector<std::uint64_t>& units)> enter_units;
    };

    StagedFile(Uuid uuid, std::string path, std::shared_ptr<StagingFiles> files, std::uint64_t size)
        : uuid_(uuid), path_(std::move(path)), files_(std::move(files)), size_(size) {}
    ~StagedFile() { files_->close(uuid_); }
    StagedFile(const StagedFile&) = delete;
    StagedFile& operator=(const StagedFile&) = delete;

    const Uuid& uuid() const { return uuid_; }
    const std::string& path() const { return path_; }
    Result<std::shared_ptr<File>> file() const { return files_->get(uuid_, path_); }
    std::uint64_t size() const { return size_.load(); }
    // Somebody else writes the file below: its size is now this. Only of a whole one.
    void set_size(std::uint64_t size) { size_.store(size); }

    // Its directory entry is on the disk.
    bool name_synced() const { return name_synced_.load(); }
    void set_name_synced() { name_synced_.store(true); }

    // Made by this process, and nobody can have mapped the file below itself: it may serve again (spare_files.hpp).
    void set_reusable(bool yes) { reusable_->store(yes); }
    const std::shared_ptr<std::atomic<bool>>& reusable() const { return reusable_; }

    // The file that shows through, if any.
    std::optional<FileId> base() const { return overlay_.record ? std::optional(overlay_.record->id) : std::nullopt; }

    // Before the file is shared between threads.
    void set_overlay(Overlay overlay, const std::vector<std::uint64_t>& units);

    // Thread-safe. Fewer bytes only at the end.
    Result<std::size_t> read(std::uint64_t offset, MutableBytes out);
    Status write(std::uint64_t offset, Bytes data);
    // The caller has already lowered the limit on disk.
    Status truncate(std::uint64_t size);
    // Room at the end for `length` bytes: returns where it begins.
    std::uint64_t reserve(std::uint64_t length) { return size_.fetch_add(length); }

  private:
    enum class Unit : std::uint8_t { kBase, kFilling, kHere };

    std::uint64_t overlaid_bytes() const;  // below this, units matter; units_mutex_ held
    Status read_unit_part(std::uint64_t offset, MutableBytes out);
    Status read_base(std::uint64_t offset, MutableBytes out, std::uint64_t limit);
    // Claims the units of a write that are still the base's; waits for those that another write is filling.
    std::vector<std::uint64_t> claim_units(std::uint64_t offset, std::uint64_t length);
    Status fill_unit(std::uint64_t unit, std::uint64_t offset, Bytes data);
    void settle_units(const std::vector<std::uint64_t>& units, Unit state);
    void grow_to(std::uint64_t end);

    Uuid uuid_;
    std::string path_;
    std::shared_ptr<StagingFiles> files_;
    std::atomic<std::uint64_t> size_;
    std::atomic<bool> name_synced_{false};
    const std::shared_ptr<std::atomic<bool>> reusable_ = std::make_shared<std::atomic<bool>>(false);

    std::mutex units_mutex_;  // guards units_ and overlay_.limit
    std::condition_variable units_settled_;
    bool overlaid_ = false;
    Overlay overlay_;
    std::vector<Unit> units_;
};

}  // namespace coral::repo
