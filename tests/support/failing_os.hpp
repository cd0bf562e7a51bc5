// SPDX-License-Identifier: Apache-2.0
// The real files, of which writes or fdatasyncs fail on demand. Only what goes through Os: SQLite's files are the real
// ones.
#pragma once

#include <atomic>
#include <cerrno>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "coral/base/os.hpp"

namespace coral::test {

class FailingOs : public Os {
  public:
    // Negative: never. Else this many bytes may still be written; the write that crosses leaves its first part in the
    // file.
    std::atomic<std::int64_t> bytes_left{-1};
    std::atomic<int> write_error{ENOSPC};
    std::atomic<bool> fail_sync{false};
    std::atomic<bool> fail_truncate{false};  // EFBIG, as a disk whose files cannot be so long
    std::atomic<bool> fail_create{false};
    std::atomic<bool> skip_sync{false};  // succeeds without doing anything, for tests of many steps
    std::atomic<int> syncs{0};
    std::function<void(std::size_t)> on_read;          // before every read, with its length; set while nobody reads
    std::function<void(const std::string&)> on_write;  // before every write, with its file; set while nobody writes
    std::function<void(const std::string&)> on_sync;   // before every sync, with its file; set while nobody syncs
    std::atomic<bool> deny_packs{false};  // to who wants to write: they have just been sealed, and we are not root
    std::string unreadable;               // reads of this file fail with EIO; set while nobody reads

    Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override {
        if (mode == OpenMode::kCreateNew && fail_create) return errno_error(ENOSPC, path);
        if (mode == OpenMode::kReadWrite && deny_packs && path.ends_with(".pack")) return errno_error(EACCES, path);
        CORAL_TRY(auto file, real_os().open(path, mode));
        return std::unique_ptr<File>(std::make_unique<FailingFile>(*this, std::move(file), path));
    }
    Status rename(const std::string& from, const std::string& to) override { return real_os().rename(from, to); }
    Status remove(const std::string& path) override { return real_os().remove(path); }
    Status remove_dir(const std::string& path) override { return real_os().remove_dir(path); }
    Status make_dir(const std::string& path, std::uint32_t mode) override { return real_os().make_dir(path, mode); }
    Status sync_dir(const std::string& path) override { return skip_sync ? Status() : real_os().sync_dir(path); }
    Result<FileStat> stat(const std::string& path) override { return real_os().stat(path); }
    Result<FileStat> lstat(const std::string& path) override { return real_os().lstat(path); }
    Result<std::vector<std::string>> list_dir(const std::string& path) override { return real_os().list_dir(path); }
    Result<std::string> read_link(const std::string& path) override { return real_os().read_link(path); }
    Result<SpaceStat> space(const std::string& path) override { return real_os().space(path); }
    std::string boot_id() override { return real_os().boot_id() + boots; }
    std::string boots;  // another one: the machine was started anew

  private:
    class FailingFile final : public File {
      public:
        FailingFile(FailingOs& os, std::unique_ptr<File> file, std::string path)
            : os_(os), file_(std::move(file)), path_(std::move(path)) {}
        Result<std::size_t> read_at(std::uint64_t offset, MutableBytes out) override {
            if (os_.on_read) os_.on_read(out.size());
            if (path_ == os_.unreadable) return errno_error(EIO, path_);
            return file_->read_at(offset, out);
        }
        Status write_at(std::uint64_t offset, Bytes data) override {
            if (os_.on_write) os_.on_write(path_);
            std::int64_t left = os_.bytes_left;
            if (left < 0) return file_->write_at(offset, data);
            if (static_cast<std::uint64_t>(left) >= data.size()) {
                os_.bytes_left = left - static_cast<std::int64_t>(data.size());
                return file_->write_at(offset, data);
            }
            os_.bytes_left = 0;
            if (left > 0) CORAL_CHECK(file_->write_at(offset, data.first(static_cast<std::size_t>(left))));
            return errno_error(os_.write_error, path_);
        }
        Status truncate(std::uint64_t size) override {
            return os_.fail_truncate ? errno_error(EFBIG, path_) : file_->truncate(size);
        }
        Status sync_data() override {
            ++os_.syncs;
            if (os_.on_sync) os_.on_sync(path_);
            if (os_.fail_sync) return errno_error(EIO, path_);
            return os_.skip_sync ? Status() : file_->sync_data();
        }
        Result<FileStat> stat() override { return file_->stat(); }
        Status change_mode(std::uint32_t mode) override { return file_->change_mode(mode); }
        Status set_mtime(std::int64_t ns) override { return file_->set_mtime(ns); }
        Result<bool> try_lock(bool exclusive) override { return file_->try_lock(exclusive); }
        Status unlock() override { return file_->unlock(); }
        int native_handle() const override { return file_->native_handle(); }

      private:
        FailingOs& os_;
        std::unique_ptr<File> file_;
        std::string path_;
    };
};

}  // namespace coral::test
