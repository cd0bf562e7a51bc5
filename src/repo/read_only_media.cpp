// SPDX-License-Identifier: Apache-2.0
#include "repo/read_only_media.hpp"

#include <fmt/format.h>

#include <cstdlib>

#include "coral/base/bytes.hpp"
#include "coral/base/hash.hpp"

namespace coral::repo {
namespace {

constexpr int kAttempts = 5;
constexpr std::size_t kPiece = 1u << 20;

std::string directory_from(const char* variable, const std::string& otherwise) {
    const char* text = std::getenv(variable);
    return text && text[0] == '/' ? text : otherwise;
}

Status make_dirs(Os& os, const std::string& dir) {
    if (os.exists(dir)) return {};
    CORAL_CHECK(make_dirs(os, path_parent(dir)));
    Status made = os.make_dir(dir);
    return made || made.error().code == Errc::kExists ? Status() : made;
}

Status copy_file(Os& os, const std::string& from, const std::string& to) {
    CORAL_TRY(auto source, os.open(from, OpenMode::kRead));
    CORAL_TRY(auto target, os.open(to, OpenMode::kOpenOrCreate));
    CORAL_CHECK(target->truncate(0));
    Buffer piece(kPiece);
    for (std::uint64_t at = 0;;) {
        CORAL_TRY(std::size_t got, source->read_at(at, piece));
        if (got == 0) return {};
        CORAL_CHECK(target->write_at(at, Bytes(piece).first(got)));
        at += got;
    }
}

// What changes when somebody writes to the database.
Result<std::string> look_of(Os& os, const std::string& state_path) {
    std::string look;
    for (const char* suffix : {"", "-wal"}) {
        auto stat = os.stat(state_path + suffix);
        if (stat)
            look += fmt::format("{} {} {};", stat->inode, stat->size, stat->mtime_ns);
        else if (stat.error().code == Errc::kNotFound && *suffix)
            look += "none;";
        else
            return std::move(stat).error();
    }
    return look;
}

}  // namespace

bool is_on_read_only_media(Os& os, const std::string& dir) {
    auto opened = os.open(path_join(dir, "FORMAT"), OpenMode::kReadWrite);
    if (opened) return false;
    Errc code = opened.error().code;
    return code == Errc::kReadOnly || code == Errc::kAccess || code == Errc::kPermission;
}

Result<std::string> index_in_cache(Os& os, const std::string& dir) {
    std::string cache = directory_from("XDG_CACHE_HOME", path_join(home_dir(), ".cache"));
    std::string folder = path_join(cache, "coral/index");
    CORAL_CHECK(make_dirs(os, folder));
    return path_join(folder, Sha256::of(as_bytes(dir)).hex().substr(0, 32) + ".db");
}

Result<std::unique_ptr<StateCopy>> StateCopy::make(Os& os, const std::string& state_path) {
    std::string parent = directory_from("TMPDIR", "/tmp");
    std::string dir = path_join(parent, "coral-state-" + Uuid::random().text());
    CORAL_CHECK(os.make_dir(dir));
    std::unique_ptr<StateCopy> copy(new StateCopy(os, dir));
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
        CORAL_TRY(std::string before, look_of(os, state_path));
        CORAL_CHECK(copy_file(os, state_path, copy->path_));
        (void)os.remove(copy->path_ + "-wal");
        if (os.exists(state_path + "-wal")) CORAL_CHECK(copy_file(os, state_path + "-wal", copy->path_ + "-wal"));
        CORAL_TRY(std::string after, look_of(os, state_path));
        if (before == after) return copy;
    }
    return make_error(
        Errc::kBusy,
        fmt::format("{}: changes while it is copied; try again, or mount where it is written", state_path));
}

StateCopy::~StateCopy() {
    if (auto names = os_.list_dir(dir_)) {
        for (const std::string& name : *names) (void)os_.remove(path_join(dir_, name));
    }
    (void)os_.remove_dir(dir_);
}

}  // namespace coral::repo
