// SPDX-License-Identifier: Apache-2.0
// Plain copies of stored files, for the kernel to read by itself. Decoded once and checked, in a folder of this process
// that nobody trusts after it: the next one removes it. Never more than the limits (bytes, and
// copies: each has a descriptor open); the one unused longest goes first.
#pragma once

#include <atomic>
#include <condition_variable>
#include <list>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>

#include "coral/repo/repository.hpp"

namespace coral::vfs {

class PlainCache {
  public:
    // While it is held the copy counts as used and stays.
    struct Copy {
        FileId id;
        std::uint64_t size = 0;
        std::unique_ptr<File> file;  // read-only
    };
    using CopyPtr = std::shared_ptr<const Copy>;

    PlainCache(repo::Repository& repo, std::uint64_t limit, std::size_t most)
        : repo_(repo), limit_(limit), most_(most) {}
    ~PlainCache();
    PlainCache(const PlainCache&) = delete;
    PlainCache& operator=(const PlainCache&) = delete;

    // Null: there is none. Thread-safe, as all here; no lock is held while a file is written.
    CopyPtr find(const FileId& id);
    // Makes it if need be; who asks for one that is being made waits for it. kNoSpace: the limits, or the disk.
    Result<CopyPtr> make(const std::shared_ptr<const store::FileRecord>& record, const std::atomic<bool>& stop);
    std::uint64_t bytes() const;
    // Folders of processes that are gone. Unlinking many gigabytes takes its time: not where anybody waits.
    void remove_left_over();
    std::uint64_t limit() const { return limit_; }

  private:
    Status open_folder();
    Result<CopyPtr> write(const std::shared_ptr<const store::FileRecord>& record, const std::atomic<bool>& stop);
    // mutex_ held
    bool fits(std::uint64_t size) const;
    std::vector<std::string> make_room(std::uint64_t size);  // what is to be unlinked

    repo::Repository& repo_;
    const std::uint64_t limit_;
    const std::size_t most_;
    std::mutex folder_mutex_;   // the folder is made once; held across that only
    mutable std::mutex mutex_;  // guards the rest
    std::condition_variable made_;
    std::string folder_;          // empty: not yet needed
    std::unique_ptr<File> lock_;  // tells the next process that we live
    std::set<FileId> making_;
    std::list<CopyPtr> copies_;  // used last at the back
    std::unordered_map<FileId, std::list<CopyPtr>::iterator> by_id_;
    std::uint64_t bytes_ = 0;  // of copies_ and of what is being made
};

// What share of this process's descriptors they may take: a quarter, for whoever has many files open needs the rest.
std::size_t most_plain_copies();

}  // namespace coral::vfs
