// SPDX-License-Identifier: Apache-2.0
#include "daemon_service.hpp"

#include <fmt/format.h>
#include <malloc.h>
#include <unistd.h>

#include <fstream>

#include "coral/base/log.hpp"
#include "coral/base/thread_pool.hpp"
#include "startup.hpp"

namespace coral::fuse {

namespace {

// Branches come and go through the mount and by other processes; whoever looks for an owner waits a little longer than
// this.
constexpr auto kLookAround = std::chrono::seconds(1);

std::uint64_t resident_bytes() {
    std::ifstream file("/proc/self/statm");
    std::uint64_t total = 0, resident = 0;
    file >> total >> resident;
    return resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace

DaemonService::DaemonService(vfs::Filesystem& fs, repo::Repository& repo, std::string mount_point, Hooks hooks)
    : fs_(fs), repo_(repo), mount_point_(std::move(mount_point)), hooks_(std::move(hooks)) {}

DaemonService::~DaemonService() {
    stop_publishing();
}

void DaemonService::start_publishing(const std::string& socket_path) {
    socket_path_ = socket_path;
    publish_all();
    publisher_ = std::thread([this] { run(); });
}

void DaemonService::stop_publishing() {
    if (!publisher_.joinable()) return;
    {
        std::lock_guard lock(mutex_);
        stop_ = true;
        wake_.notify_all();
    }
    publisher_.join();
    for (const auto& [branch, uuid] : published_) control::withdraw_owner(repo_, uuid, socket_path_);
    published_.clear();
}

void DaemonService::run() {
    set_thread_name("publisher");
    std::unique_lock lock(mutex_);
    while (!wake_.wait_for(lock, kLookAround, [this] { return stop_; })) {
        lock.unlock();
        try {
            publish_all();
            give_memory_back();
        } catch (const std::exception& e) {
            log_error("publisher: {}", e.what());
        }
        lock.lock();
    }
}

std::uint64_t DaemonService::pending_ingest() {
    std::map<std::string, Uuid> owned;
    {
        std::lock_guard lock(mutex_);
        owned = published_;
    }
    std::uint64_t pending = 0;
    for (const auto& [branch, uuid] : owned) {
        auto worktree = fs_.worktree(branch);
        if (worktree && *worktree) pending += (*worktree)->pending();
    }
    return pending;
}

void DaemonService::give_memory_back() {
    constexpr std::size_t kWorthIt = 32u << 20;
    if (::mallinfo2().fordblks > kWorthIt && pending_ingest() == 0) ::malloc_trim(0);
}

void DaemonService::publish_all() {
    auto branches = repo_.branches();
    if (!branches) {
        log_warn("branches: {}", branches.error().message);
        return;
    }
    withdraw_missing(*branches);
    for (const repo::Branch& branch : *branches) {
        {
            std::lock_guard lock(mutex_);
            auto it = published_.find(branch.name);
            if (it != published_.end() && it->second == branch.worktree) continue;
        }
        auto worktree = fs_.worktree(branch.name);
        if (worktree && *worktree) publish(*worktree);
    }
}

// Branches that are deleted or renamed: under their new name they are published again.
void DaemonService::withdraw_missing(const std::vector<repo::Branch>& branches) {
    std::map<std::string, Uuid> gone;
    {
        std::lock_guard lock(mutex_);
        gone = published_;
    }
    for (const repo::Branch& branch : branches) {
        if (auto it = gone.find(branch.name); it != gone.end() && it->second == branch.worktree) gone.erase(it);
    }
    for (const auto& [branch, uuid] : gone) withdraw(branch);
}

void DaemonService::publish(const std::shared_ptr<repo::Worktree>& worktree) {
    {
        std::lock_guard lock(mutex_);
        if (socket_path_.empty()) return;
        Uuid& known = published_[worktree->branch()];
        if (known == worktree->uuid()) return;
        known = worktree->uuid();
    }
    if (Status done = control::publish_owner(repo_, worktree->uuid(), socket_path_); !done)
        log_warn("branch {}: commands will not find this daemon: {}", worktree->branch(), done.error().message);
}

void DaemonService::withdraw(const std::string& branch) {
    Uuid uuid;
    {
        std::lock_guard lock(mutex_);
        auto it = published_.find(branch);
        if (it == published_.end()) return;
        uuid = it->second;
        published_.erase(it);
    }
    control::withdraw_owner(repo_, uuid, socket_path_);
}

Result<control::DaemonInfo> DaemonService::info() {
    control::DaemonInfo info;
    info.worker_pid = static_cast<std::uint32_t>(::getpid());
    info.pid = hooks_.supervisor ? hooks_.supervisor : info.worker_pid;
    if (hooks_.handover) info.workers = hooks_.handover->workers();
    info.supervised = hooks_.supervised && hooks_.supervised();
    info.mount_point = mount_point_;
    info.repository = repo_.dir();
    info.version = CORAL_VERSION;
    info.resident_bytes = resident_bytes();
    info.passthrough = hooks_.passthrough ? hooks_.passthrough() : "off";
    vfs::Usage usage = fs_.usage();
    info.hot_bytes = usage.hot_bytes;
    info.hot_limit = usage.hot_limit;
    info.plain_bytes = usage.plain_bytes;
    info.plain_limit = usage.plain_limit;
    info.open_files = usage.open_files;
    info.passthrough_files = usage.passthrough_files;
    info.kernel_readahead_kb = kernel_readahead_kb(mount_point_);
    info.pending_ingest = pending_ingest();
    info.read_only = hooks_.read_only;
    auto branches = repo_.branches();
    if (!branches) return info;  // what else there is to tell is still true
    for (const repo::Branch& branch : *branches) {
        auto worktree = fs_.worktree(branch.name);  // takes it if it has become free
        if (!worktree && worktree.error().code == Errc::kBusy) info.read_only_branches.push_back(branch.name);
    }
    return info;
}

Result<std::shared_ptr<repo::Worktree>> DaemonService::worktree(const std::string& branch) {
    CORAL_TRY(auto worktree, fs_.worktree(branch));
    if (worktree) publish(worktree);
    return worktree;
}

std::optional<std::string> DaemonService::goes_on_because() {
    if (!hooks_.pinned || !hooks_.pinned()) return std::nullopt;
    return fmt::format(
        "{}: is unmounted here, but another mount namespace (a container, a sandboxed service) has it still; its "
        "daemon "
        "goes on until that ends, or `coral umount {}` ends it",
        mount_point_, repo_.dir());
}

// Down the path as the kernel would go, so that the node is the one that it knows.
Result<bool> DaemonService::warm(const std::string& path) {
    std::vector<vfs::NodeId> held;
    vfs::NodeId at = vfs::kRoot;
    Result<bool> done = false;
    for (std::size_t begin = 0; begin <= path.size();) {
        std::size_t end = std::min(path.find('/', begin), path.size());
        auto entry = fs_.lookup(at, std::string_view(path).substr(begin, end - begin));
        if (!entry) {
            done = std::move(entry).error().with(path);
            break;
        }
        at = entry->attr.node;
        held.push_back(at);
        begin = end + 1;
        if (begin > path.size()) done = fs_.warm(at);
    }
    for (vfs::NodeId node : held) fs_.forget(node, 1);
    return done;
}

Status DaemonService::branches_changed() {
    CORAL_CHECK(fs_.branches_changed());
    publish_all();
    return {};
}

Status DaemonService::release_branch(const std::string& branch) {
    CORAL_CHECK(fs_.release_branch(branch));
    withdraw(branch);
    return {};
}

}  // namespace coral::fuse
