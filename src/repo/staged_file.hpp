// SPDX-License-Identifier: Apache-2.0
// The staging file of one inode: bytes that were written and are not (wholly) in packs yet. Either whole, or an overlay
// over stored files: then only the units of 256 KiB that were written are in it. Under the others lies the file that
// was there before (the base, at the same offsets), or what was copied in without its bytes (links, newer than the
// base). The staging file's own size is the logical size.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
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
        std::shared_ptr<const store::FileRecord> record;  // the base; null: links only
        std::uint64_t limit = 0;                          // smallest size since the overlay began
        std::function<Status(const std::vector<std::uint64_t>& units)> enter_units;
    };

    // `length` bytes of a stored file, from `from` on, that show through from the beginning of unit `unit` on. Covers
    // whole units; what the last one lacks reads as zeros.
    struct Link {
        std::uint64_t unit = 0, length = 0, from = 0;
        std::shared_ptr<const store::FileRecord> record;
        std::uint64_t end_unit() const { return unit + (length + kUnit - 1) / kUnit; }
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

    // No stored file shows through, nor ever did.
    bool whole() const { return !overlaid_.load(); }
    // The files that may show through.
    std::vector<FileId> shown() const;
    std::vector<Link> links() const;
    // How often something was linked, be it covered by now or not: that many rows there may be.
    std::size_t times_linked() const;
    // Before fsync(2) syncs the file and says so. What is written to units under which something lies is synced from
    // now on before their rows are: else a power cut could leave the row of a unit whose bytes never reached the disk,
    // and hide what was promised. Waits for writes that are under way.
    void promise();

    // Before the file is shared between threads. `links` from the oldest to the newest.
    void set_overlay(Overlay overlay, const std::vector<std::uint64_t>& units, const std::vector<Link>& links);

    // While it lives no write is under way: waits for those that are, and the next ones wait for it.
    class Alone {
      public:
        explicit Alone(StagedFile& file);
        ~Alone();
        Alone(const Alone&) = delete;
        Alone& operator=(const Alone&) = delete;

      private:
        StagedFile& file_;
    };
    // What of a range that is to be linked are whole units, as a range of bytes: the last one counts when the file
    // ends in it. Empty: none.
    std::pair<std::uint64_t, std::uint64_t> whole_units(std::uint64_t offset, std::uint64_t length) const;
    // The caller is alone and has made it permanent; the file below is as long already. `overlay` is for one that was
    // whole.
    void show(const Link& link, const Overlay& overlay);

    // Thread-safe. Fewer bytes only at the end.
    Result<std::size_t> read(std::uint64_t offset, MutableBytes out);
    Status write(std::uint64_t offset, Bytes data);
    // The caller has already lowered the limit on disk.
    Status truncate(std::uint64_t size);
    // Room at the end for `length` bytes: returns where it begins.
    std::uint64_t reserve(std::uint64_t length) { return size_.fetch_add(length); }
    // What was reserved could not be written; it stays, as zeros, where somebody has reserved more behind it.
    void give_back(std::uint64_t offset, std::uint64_t length);
    // The caller is alone and the only one who truncates. A write that failed has left its first part behind the end:
    // it must not be found there when the file grows, nor by the next process, which asks the file below for its size.
    Status drop_excess();

    // Once it has failed it fails until the file is emptied: the kernel tells of lost bytes only once, and fsync must
    // not succeed afterwards.
    Status sync_data();

  private:
    enum class Unit : std::uint8_t { kUnder, kFilling, kHere };
    // What lies under one unit: `length` bytes of `record` from `from` on, then zeros.
    struct Under {
        store::Store* store = nullptr;
        std::shared_ptr<const store::FileRecord> record;
        std::uint64_t from = 0, length = 0;
    };

    Under under(std::uint64_t unit) const;  // units_mutex_ held
    void put_link(const Link& link);        // units_mutex_ held
    Status read_unit_part(std::uint64_t offset, MutableBytes out);
    static Status read_under(const Under& under, std::uint64_t offset, MutableBytes out);
    class Writing;  // a write that is under way
    Status fill(const std::vector<std::uint64_t>& units, std::uint64_t offset, Bytes data);
    Status fill_unit(std::uint64_t unit, std::uint64_t offset, Bytes data);
    void grow_to(std::uint64_t end);

    Uuid uuid_;
    std::string path_;
    std::shared_ptr<StagingFiles> files_;
    std::atomic<std::uint64_t> size_;
    std::atomic<bool> name_synced_{false}, promised_{false}, lost_bytes_{false};
    const std::shared_ptr<std::atomic<bool>> reusable_ = std::make_shared<std::atomic<bool>>(false);

    mutable std::mutex units_mutex_;  // guards all below
    std::condition_variable units_settled_;
    std::atomic<bool> overlaid_{false};  // never false again
    Overlay overlay_;
    std::vector<Unit> units_;              // behind its end, and where no link is: kHere
    std::map<std::uint64_t, Link> links_;  // by first unit; they do not overlap
    std::size_t times_linked_ = 0;
    unsigned writing_ = 0;
    bool alone_ = false;
};

}  // namespace coral::repo
