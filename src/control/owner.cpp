// SPDX-License-Identifier: Apache-2.0
// Who owns a worktree: found through a small file beside its lock, never by asking every daemon.
#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "control/client.hpp"
#include "coral/base/bytes.hpp"
#include "coral/base/os.hpp"

namespace coral::control {

namespace {

constexpr int kAttempts = 40;  // two seconds: a daemon takes the lock a moment before it can say where it listens
constexpr auto kPause = std::chrono::milliseconds(50);

std::string trimmed(std::string text) {
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
    return text;
}

std::string published_socket(repo::Repository& repo, const Uuid& worktree) {
    auto text = read_file(repo.os(), repo::Worktree::owner_path(repo, worktree), 4096);
    return text ? trimmed(std::move(*text)) : std::string();
}

// A shared lock for a moment: does not disturb others that look, and whoever wants to own tries again.
Result<bool> lock_is_free(repo::Repository& repo, const Uuid& worktree) {
    auto file = repo.os().open(repo::Worktree::lock_path(repo, worktree), OpenMode::kRead);
    if (!file && file.error().code == Errc::kNotFound) return true;
    if (!file) return std::move(file).error();
    return (*file)->try_lock(false);
}

}  // namespace

Status publish_owner(const repo::Repository& repo, const Uuid& worktree, const std::string& socket_path) {
    // Renamed into place so that nobody reads half a path; not synced, it means nothing after a crash.
    std::string path = repo::Worktree::owner_path(repo, worktree);
    std::string temporary = fmt::format("{}.{}", path, Uuid::random().text());
    auto write = [&]() -> Status {
        CORAL_TRY(auto file, repo.os().open(temporary, OpenMode::kCreateNew));
        CORAL_CHECK(file->write_at(0, as_bytes(socket_path + "\n")));
        return repo.os().rename(temporary, path);
    };
    Status done = write();
    if (!done) (void)repo.os().remove(temporary);
    return done;
}

void withdraw_owner(const repo::Repository& repo, const Uuid& worktree, const std::string& socket_path) {
    std::string path = repo::Worktree::owner_path(repo, worktree);
    auto text = read_file(repo.os(), path, 4096);
    // Somebody may have taken the worktree over since.
    if (text && trimmed(std::move(*text)) == socket_path) (void)repo.os().remove(path);
}

Result<std::unique_ptr<Client>> Client::owner_of(repo::Repository& repo, const std::string& branch) {
    CORAL_TRY(repo::Branch found, repo.branch(branch));
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
        if (attempt) std::this_thread::sleep_for(kPause);
        std::string socket = published_socket(repo, found.worktree);
        if (!socket.empty()) {
            auto client = connect_as_owner(socket, branch, found.worktree);
            if (client) return client;
            // It is there, but not for us: waiting does not help.
            if (client.error().code == Errc::kAccess) return std::move(client).error();
        }
        CORAL_TRY(bool free, lock_is_free(repo, found.worktree));
        if (free) return make_error(Errc::kNotFound, fmt::format("no daemon serves branch '{}'", branch));
    }
    return make_error(Errc::kBusy,
                      fmt::format("branch '{}' is being changed by another process ({} is locked, nobody answers); "
                                  "wait for it to end",
                                  branch, repo::Worktree::lock_path(repo, found.worktree)));
}

}  // namespace coral::control
