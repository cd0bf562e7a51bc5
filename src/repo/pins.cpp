// SPDX-License-Identifier: Apache-2.0
#include "repo/pins.hpp"

#include <algorithm>

#include "coral/base/bytes.hpp"
#include "coral/base/log.hpp"

namespace coral::repo {
namespace {

// One entry: '+' or '-', then the id. A file is written anew when most of it is history.
constexpr std::size_t kEntry = 33;
constexpr std::uint64_t kWorthRewriting = 1u << 20;
constexpr std::string_view kPrefix = "pins-";

}  // namespace

Pins::~Pins() {
    if (file_) (void)os_.remove(path_);
}

// Locked before it has the name under which others look for it: they take one that is not locked for left behind.
Status Pins::make_file() {
    std::string name = Uuid::random().text();
    std::string temporary = path_join(run_dir_, "new-" + name), path = path_join(run_dir_, std::string(kPrefix) + name);
    auto file = os_.open(temporary, OpenMode::kCreateNew);
    if (!file && file.error().code == Errc::kNotFound) {
        (void)os_.make_dir(run_dir_);
        file = os_.open(temporary, OpenMode::kCreateNew);
    }
    if (!file) return std::move(file).error();
    Buffer content;
    for (const auto& [id, count] : used_) ByteWriter(content).u8('+').id(id);
    auto fill = [&]() -> Status {
        CORAL_TRY(bool locked, (*file)->try_lock(true));
        if (!locked) return make_error(Errc::kBusy, temporary + ": is locked");
        CORAL_CHECK((*file)->write_at(0, content));
        return os_.rename(temporary, path);
    };
    if (Status filled = fill(); !filled) {
        (void)os_.remove(temporary);
        return filled;
    }
    if (file_) (void)os_.remove(path_);
    file_ = std::move(*file);
    path_ = path;
    end_ = content.size();
    return {};
}

Status Pins::write(std::byte sign, const FileId& id) {
    if (!file_ || (end_ > kWorthRewriting && used_.size() * kEntry * 4 < end_)) return make_file();
    Buffer entry;
    ByteWriter(entry).u8(static_cast<std::uint8_t>(sign)).id(id);
    CORAL_CHECK(file_->write_at(end_, entry));
    end_ += entry.size();
    return {};
}

std::shared_ptr<void> Pins::pin(const FileId& id) {
    {
        std::lock_guard lock(mutex_);
        if (impossible_) return nullptr;
        if (++used_[id] == 1) {
            if (Status written = write(std::byte{'+'}, id); !written) {
                log_debug("open files are not told to `coral gc`: {}", written.error().message);
                used_.erase(id);
                impossible_ = !file_;
                return nullptr;
            }
        }
    }
    return {static_cast<void*>(this), [self = shared_from_this(), id](void*) { self->unpin(id); }};
}

void Pins::unpin(const FileId& id) {
    std::lock_guard lock(mutex_);
    auto found = used_.find(id);
    if (found == used_.end() || --found->second > 0) return;
    used_.erase(found);
    // One that stays in the file costs room until the process ends, no more.
    if (Status written = write(std::byte{'-'}, id); !written) log_debug("{}", written.error().message);
}

Result<std::vector<FileId>> Pins::all(Os& os, const std::string& run_dir) {
    std::vector<FileId> out;
    auto names = os.list_dir(run_dir);
    if (!names && names.error().code == Errc::kNotFound) return out;
    if (!names) return std::move(names).error();
    for (const std::string& name : *names) {
        if (!name.starts_with(kPrefix)) continue;
        std::string path = path_join(run_dir, name);
        auto file = os.open(path, OpenMode::kRead);
        if (!file && file.error().code == Errc::kNotFound) continue;
        if (!file) return std::move(file).error();
        CORAL_TRY(bool left_behind, (*file)->try_lock(false));
        if (left_behind) {
            (void)os.remove(path);
            continue;
        }
        CORAL_TRY(FileStat stat, (*file)->stat());
        Buffer content(static_cast<std::size_t>(stat.size));
        CORAL_TRY(std::size_t got, (*file)->read_at(0, content));
        std::map<FileId, bool> used;
        for (std::size_t at = 0; at + kEntry <= got; at += kEntry) {
            used[*FileId::from_bytes(Bytes(content).subspan(at + 1, 32))] = content[at] == std::byte{'+'};
        }
        for (const auto& [id, is_used] : used) {
            if (is_used) out.push_back(id);
        }
    }
    return out;
}

}  // namespace coral::repo
