// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <pwd.h>
#include <unistd.h>

#include <boost/filesystem.hpp>

#include <chrono>
#include <cstdlib>
#include <limits>

#include "coral/base/bytes.hpp"
#include "coral/base/os.hpp"

namespace coral {

Result<std::string> read_file(Os& os, const std::string& path, std::uint64_t limit) {
    CORAL_TRY(auto file, os.open(path, OpenMode::kRead));
    CORAL_TRY(FileStat st, file->stat());
    if (st.type == FileType::kDirectory) return make_error(Errc::kIsDirectory, fmt::format("{}: is a directory", path));
    if (st.size > limit) return make_error(Errc::kTooLarge, fmt::format("{}: larger than {} bytes", path, limit));
    // Files under /proc say 0: read until the end, with room for one more byte to notice growth past the limit.
    std::string text(st.size ? st.size : 4096, '\0');
    std::size_t used = 0;
    while (true) {
        CORAL_TRY(std::size_t got, file->read_at(used, std::as_writable_bytes(std::span(text)).subspan(used)));
        used += got;
        if (used < text.size()) break;
        if (st.size && used == st.size) break;
        if (used >= limit) return make_error(Errc::kTooLarge, fmt::format("{}: larger than {} bytes", path, limit));
        text.resize(text.size() * 2);
    }
    text.resize(used);
    return text;
}

Status write_file_atomic(Os& os, const std::string& path, Bytes data) {
    std::string temporary = fmt::format("{}.tmp-{}", path, Uuid::random().text());
    auto write = [&]() -> Status {
        CORAL_TRY(auto file, os.open(temporary, OpenMode::kCreateNew));
        CORAL_CHECK(file->write_at(0, data));
        CORAL_CHECK(file->sync_data());
        CORAL_CHECK(os.rename(temporary, path));
        return os.sync_dir(path_parent(path));
    };
    Status done = write();
    if (!done) (void)os.remove(temporary);
    return done;
}

std::int64_t now_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
        .count();
}

std::int64_t time_ns(std::int64_t seconds, std::int64_t rest) {
    constexpr std::int64_t kSecond = 1'000'000'000;
    // Whole seconds, so that who takes one apart again (set_mtime) stays within the range, too.
    constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max() / kSecond - 1;
    if (seconds > kMost) return kMost * kSecond;
    if (seconds < -kMost) return -kMost * kSecond;
    return seconds * kSecond + rest;
}

std::int64_t monotonic_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

std::string boot_id() {
    static const std::string id = [] {
        auto text = read_file(real_os(), "/proc/sys/kernel/random/boot_id");
        std::string out = text ? *text : std::string("unknown");
        while (!out.empty() && out.back() == '\n') out.pop_back();
        return out;
    }();
    return id;
}

Result<bool> Os::has_writers(const std::string& path) {
    return make_error(Errc::kUnsupported, path + ": leases are not supported");
}

std::string Os::boot_id() {
    return coral::boot_id();
}

std::string path_join(std::string_view a, std::string_view b) {
    if (a.empty()) return std::string(b);
    if (b.empty()) return std::string(a);
    return fmt::format("{}{}{}", a, a.back() == '/' ? "" : "/", b);
}

std::string path_parent(std::string_view path) {
    std::size_t slash = path.rfind('/');
    if (slash == std::string_view::npos) return ".";
    return slash == 0 ? "/" : std::string(path.substr(0, slash));
}

std::string path_name(std::string_view path) {
    std::size_t slash = path.rfind('/');
    return std::string(slash == std::string_view::npos ? path : path.substr(slash + 1));
}

Result<std::string> absolute_path(const std::string& path) {
    boost::system::error_code error;
    boost::filesystem::path absolute = boost::filesystem::weakly_canonical(boost::filesystem::absolute(path), error);
    if (error) return errno_error(error.value(), path);
    std::string text = absolute.native();
    while (text.size() > 1 && text.back() == '/') text.pop_back();
    return text;
}

std::string home_dir() {
    if (const char* home = std::getenv("HOME"); home && *home) return home;
    if (const passwd* user = ::getpwuid(::getuid()); user && user->pw_dir) return user->pw_dir;
    return "/";
}

std::string login_name() {
    passwd entry{};
    passwd* found = nullptr;
    char buffer[4096];
    if (::getpwuid_r(::getuid(), &entry, buffer, sizeof buffer, &found) == 0 && found && *found->pw_name) {
        return found->pw_name;
    }
    if (const char* user = std::getenv("USER"); user && *user) return user;
    return fmt::format("user{}", ::getuid());
}

}  // namespace coral
