// SPDX-License-Identifier: Apache-2.0
// A Filesystem as the kernel uses it: paths become lookups, every lookup is forgotten again, every open is flushed and
// released.
#pragma once

#include <fcntl.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "coral/base/bytes.hpp"
#include "coral/vfs/filesystem.hpp"

namespace coral::test {

// A node with the references that leading to it cost; gives them back.
class Held {
  public:
    Held() = default;
    Held(vfs::Filesystem& fs, const vfs::Entry& at) : entry(at), fs_(&fs) {}
    Held(Held&& other) noexcept { *this = std::move(other); }
    Held& operator=(Held&& other) noexcept {
        drop();
        entry = other.entry;
        fs_ = std::exchange(other.fs_, nullptr);
        nodes_ = std::move(other.nodes_);
        return *this;
    }
    ~Held() { drop(); }
    void add(const vfs::Entry& next) {
        entry = next;
        nodes_.push_back(next.attr.node);
    }
    vfs::NodeId id() const { return entry.attr.node; }
    vfs::Entry entry;

  private:
    void drop() {
        if (fs_) {
            for (vfs::NodeId node : nodes_) fs_->forget(node, 1);
        }
        fs_ = nullptr;
        nodes_.clear();
    }
    vfs::Filesystem* fs_ = nullptr;
    std::vector<vfs::NodeId> nodes_;
};

struct Listed {
    std::string name;
    vfs::Attr attr;
    bool plus = false;
};

class FsClient {
  public:
    explicit FsClient(vfs::Filesystem& fs) : fs_(fs) {}
    vfs::Filesystem& fs() const { return fs_; }
    vfs::Caller caller() const { return {1000, 1000, 0, 022}; }

    // "branches/main/a"; symlinks are not followed.
    Result<Held> walk(std::string_view path) const {
        Held at(fs_, root());
        while (!path.empty()) {
            std::size_t slash = path.find('/');
            std::string_view part = path.substr(0, slash);
            path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
            if (part.empty()) continue;
            CORAL_TRY(vfs::Entry next, fs_.lookup(at.id(), part));
            at.add(next);
        }
        return at;
    }
    // The parent's node and the last name.
    Result<std::pair<Held, std::string>> walk_parent(std::string_view path) const {
        std::size_t slash = path.rfind('/');
        std::string name(slash == std::string_view::npos ? path : path.substr(slash + 1));
        CORAL_TRY(Held parent, walk(slash == std::string_view::npos ? std::string_view() : path.substr(0, slash)));
        return std::pair{std::move(parent), std::move(name)};
    }
    Result<vfs::Attr> stat(std::string_view path) const {
        CORAL_TRY(Held at, walk(path));
        CORAL_TRY(vfs::Entry entry, fs_.attributes(at.id(), std::nullopt));
        return entry.attr;
    }
    Result<std::string> link(std::string_view path) const {
        CORAL_TRY(Held at, walk(path));
        return fs_.read_link(at.id());
    }

    Status make_dir(std::string_view path, std::uint32_t mode = 0755) const {
        CORAL_TRY(auto at, walk_parent(path));
        CORAL_TRY(vfs::Entry made, fs_.make_directory(at.first.id(), at.second, mode, caller()));
        fs_.forget(made.attr.node, 1);
        return {};
    }
    Status make_link(std::string_view path, std::string_view target) const {
        CORAL_TRY(auto at, walk_parent(path));
        CORAL_TRY(vfs::Entry made, fs_.make_symlink(at.first.id(), at.second, target, caller()));
        fs_.forget(made.attr.node, 1);
        return {};
    }
    Status unlink(std::string_view path) const {
        CORAL_TRY(auto at, walk_parent(path));
        return fs_.unlink(at.first.id(), at.second);
    }
    Status remove_dir(std::string_view path) const {
        CORAL_TRY(auto at, walk_parent(path));
        return fs_.remove_directory(at.first.id(), at.second);
    }
    Status rename(std::string_view from, std::string_view to,
                  repo::RenameMode mode = repo::RenameMode::kReplace) const {
        CORAL_TRY(auto a, walk_parent(from));
        CORAL_TRY(auto b, walk_parent(to));
        return fs_.rename(a.first.id(), a.second, b.first.id(), b.second, mode);
    }
    Status set(std::string_view path, const repo::SetAttributes& set) const {
        CORAL_TRY(Held at, walk(path));
        CORAL_TRY(vfs::Entry ignored, fs_.set_attributes(at.id(), set, std::nullopt));
        (void)ignored;
        return {};
    }

    Result<vfs::Opened> open(std::string_view path, int flags) const {
        CORAL_TRY(Held at, walk(path));
        return fs_.open_file(at.id(), flags, caller());
    }
    // open(2) with O_CREAT.
    Result<vfs::Opened> create(std::string_view path, int flags = O_RDWR, std::uint32_t mode = 0644) const {
        CORAL_TRY(auto at, walk_parent(path));
        CORAL_TRY(auto made, fs_.create(at.first.id(), at.second, mode, flags | O_CREAT, caller()));
        fs_.forget(made.first.attr.node, 1);
        return made.second;
    }
    Status close(vfs::HandleId handle) const {
        Status flushed = fs_.flush(handle);
        fs_.release(handle);
        return flushed;
    }
    Status write(vfs::HandleId handle, std::uint64_t offset, std::string_view data) const {
        CORAL_TRY(std::size_t done, fs_.write(handle, offset, as_bytes(data)));
        if (done != data.size()) return make_error(Errc::kInternal, "short write");
        return {};
    }
    Result<std::string> read(vfs::HandleId handle, std::uint64_t offset, std::size_t length) const {
        std::string out(length, '\0');
        CORAL_TRY(std::size_t got, fs_.read(handle, offset, std::as_writable_bytes(std::span(out))));
        out.resize(got);
        return out;
    }
    Result<std::string> read_all(vfs::HandleId handle) const {
        std::string out;
        while (true) {
            CORAL_TRY(std::string part, read(handle, out.size(), 1u << 20));
            if (part.empty()) return out;
            out += part;
        }
    }

    // Like the shell's: `> path` and `cat path`.
    Status put(std::string_view path, std::string_view data) const {
        auto opened = open(path, O_WRONLY | O_TRUNC);
        if (!opened && opened.error().code == Errc::kNotFound) opened = create(path, O_WRONLY);
        CORAL_CHECK(opened);
        Status written = data.empty() ? Status() : write(opened->handle, 0, data);
        CORAL_CHECK(close(opened->handle));
        return written;
    }
    Result<std::string> cat(std::string_view path) const {
        CORAL_TRY(vfs::Opened opened, open(path, O_RDONLY));
        auto data = read_all(opened.handle);
        CORAL_CHECK(close(opened.handle));
        return data;
    }

    // Entries but "." and "..", `per_call` at a time, as the kernel's buffer holds them.
    Result<std::vector<Listed>> list(std::string_view path, bool plus = false, std::size_t per_call = 30) const {
        CORAL_TRY(Held at, walk(path));
        CORAL_TRY(vfs::HandleId handle, fs_.open_directory(at.id()));
        std::vector<Listed> all;
        Status status;
        std::uint64_t offset = 0;
        while (true) {
            std::size_t taken = 0;
            status = fs_.read_directory(handle, offset, plus, [&](const vfs::DirItem& item, const vfs::Entry* entry) {
                if (taken == per_call) return false;
                ++taken;
                offset = item.next;
                if (entry) fs_.forget(entry->attr.node, 1);
                if (item.name != "." && item.name != "..") all.push_back({item.name, item.attr, entry != nullptr});
                return true;
            });
            if (!status || taken == 0) break;
        }
        fs_.release_directory(handle);
        CORAL_CHECK(status);
        return all;
    }
    Result<std::vector<std::string>> names(std::string_view path) const {
        CORAL_TRY(auto listed, list(path));
        std::vector<std::string> out;
        for (const Listed& item : listed) out.push_back(item.name);
        return out;
    }
    Result<std::string> xattr(std::string_view path, const std::string& name) const {
        CORAL_TRY(Held at, walk(path));
        return fs_.get_xattr(at.id(), name);
    }

    static vfs::Entry root() {
        vfs::Entry entry;
        entry.attr.node = vfs::kRoot;
        entry.attr.type = FileType::kDirectory;
        return entry;
    }

  private:
    vfs::Filesystem& fs_;
};

}  // namespace coral::test
