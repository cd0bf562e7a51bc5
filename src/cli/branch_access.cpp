// SPDX-License-Identifier: Apache-2.0
#include "cli/branch_access.hpp"

#include <fmt/format.h>

#include <chrono>
#include <set>
#include <thread>

#include "cli/text.hpp"
#include "coral/base/os.hpp"

namespace coral::cli {
namespace {

constexpr int kAttempts = 3;  // a daemon may take the branch between the two questions
constexpr auto kPause = std::chrono::milliseconds(50);

}  // namespace

Result<BranchAccess> BranchAccess::open(Context& context, const std::string& branch) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    BranchAccess access;
    access.branch_ = branch;
    for (int attempt = 1;; ++attempt) {
        auto client = control::Client::owner_of(*repository, branch);
        if (client) {
            access.client_ = std::move(*client);
            return access;
        }
        if (client.error().code != Errc::kNotFound) return std::move(client).error();
        CORAL_TRY(repo::Branch found, repository->branch(branch));  // kNotFound means the branch, too
        (void)found;
        auto worktree = repo::Worktree::open(*repository, branch, context.pool());
        if (worktree) {
            access.worktree_ = std::move(*worktree);
            return access;
        }
        if (worktree.error().code != Errc::kBusy || attempt == kAttempts) return std::move(worktree).error();
        std::this_thread::sleep_for(kPause);
    }
}

Result<repo::StatusResult> BranchAccess::status() {
    return client_ ? client_->status(branch_) : worktree_->status();
}

Result<repo::CommitResult> BranchAccess::commit(const repo::CommitOptions& options) {
    return client_ ? client_->commit(branch_, options) : worktree_->commit(options);
}

Result<std::uint64_t> BranchAccess::restore(const TreeId& source, const std::vector<std::string>& paths) {
    return client_ ? client_->restore(branch_, source, paths) : worktree_->restore(source, paths);
}

Result<std::uint64_t> BranchAccess::place(const std::vector<control::PlaceRequest>& requests) {
    if (client_) return client_->place(branch_, requests);
    CORAL_TRY(std::uint64_t placed, control::place_all(*worktree_, requests));
    CORAL_CHECK(worktree_->sync_names());
    return placed;
}

void BranchAccess::on_progress(std::function<void(std::uint64_t, std::uint64_t)> progress) {
    if (client_) client_->on_progress(std::move(progress));
}

Result<repo::StatusResult> branch_status(Context& context, const std::string& branch) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    auto access = BranchAccess::open(context, branch);
    if (access) return access->status();
    if (!repository->read_only() || access.error().code == Errc::kNotFound) return std::move(access).error();
    CORAL_TRY(repo::Branch found, repository->branch(branch));
    context.out.warn(
        fmt::format("{}: can only be read, and no daemon serves branch '{}': uncommitted changes are not shown",
                    repository->dir(), branch));
    return repo::StatusResult{branch, found.commit, {}};
}

std::unique_ptr<control::Client> find_daemon(repo::Repository& repository, control::DaemonInfo* info) {
    auto branches = repository.branches();
    if (!branches) return nullptr;
    std::set<std::string> tried;
    for (const repo::Branch& branch : *branches) {
        auto text = read_file(repository.os(), repo::Worktree::owner_path(repository, branch.worktree), 4096);
        if (!text) continue;
        std::string socket = text->substr(0, text->find('\n'));
        if (socket.empty() || !tried.insert(socket).second) continue;
        auto client = control::Client::connect(socket);
        if (!client) continue;
        auto said = (*client)->info();
        if (!said || said->repository != repository.dir()) continue;
        if (info) *info = std::move(*said);
        return std::move(*client);
    }
    return nullptr;
}

Status each_daemon(repo::Repository& repository, const std::function<Status(control::Client&)>& visit) {
    CORAL_TRY(auto branches, repository.branches());
    std::set<std::string> tried;
    for (const repo::Branch& branch : branches) {
        auto text = read_file(repository.os(), repo::Worktree::owner_path(repository, branch.worktree), 4096);
        if (!text) continue;
        std::string socket = text->substr(0, text->find('\n'));
        if (socket.empty() || !tried.insert(socket).second) continue;
        auto client = control::Client::connect(socket);
        if (!client) continue;  // it is no more
        auto said = (*client)->info();
        if (!said || said->repository != repository.dir()) continue;
        CORAL_CHECK(visit(**client));
    }
    return {};
}

Status tell_daemons_of_removal(repo::Repository& repository, const char* command) {
    return each_daemon(repository, [&](control::Client& daemon) -> Status {
        Status told = daemon.packs_changed();
        if (told || told.error().code != Errc::kUnsupported) return {};
        auto info = daemon.info();
        return make_error(Errc::kUnsupported,
                          fmt::format("the mount at {} is of an older CoralFS that does not know `{}`; unmount it and "
                                      "mount it again",
                                      info ? quote_name(info->mount_point) : std::string("an unknown place"), command));
    });
}

void tell_branches_changed(Context& context, repo::Repository& repository, std::unique_ptr<control::Client> daemon) {
    if (!daemon) daemon = find_daemon(repository);
    if (!daemon) return;
    auto told = daemon->branches_changed();
    if (!told) context.out.warn(fmt::format("the daemon has not taken the change in yet: {}", told.error().message));
}

}  // namespace coral::cli
