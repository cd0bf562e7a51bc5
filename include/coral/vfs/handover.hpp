// SPDX-License-Identifier: Apache-2.0
// What a process that serves a mount leaves to the one that follows when it dies or is replaced: the kernel goes on
// naming nodes and handles by number, and sends again what was not answered. Kept in memory files whose descriptors a
// supervisor holds (fuse/supervisor.hpp), so it survives SIGKILL, and is gone with the mount.
//
//   header   numbers, the connection's INIT, and what requests found before they changed something
//   two logs one of them in use: records of nodes, open files and listings; written anew into the other one when most
//            of it is about what is gone. A record that was cut off by a kill is not there.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "coral/base/bytes.hpp"
#include "coral/base/os.hpp"
#include "coral/repo/objects.hpp"
#include "coral/vfs/filesystem.hpp"

namespace coral::vfs {

// The request that this thread is handling: noted by fuse/ as it is read.
struct CurrentRequest {
    std::uint64_t unique = 0;
    bool again = false;  // the kernel has sent it before, to a process that died
    int slot = -1;       // where Handover keeps what it found
};
CurrentRequest& current_request();

// A node whose number cannot be turned back into what it means (branch entries can: it is their row's).
struct SavedNode {
    NodeId id = 0, parent = 0;
    std::uint8_t kind = 0, area = 0;
    std::int64_t time_ns = 0;
    std::string key, text, space;
    CommitId commit;
    repo::TreeEntry entry;
};

struct SavedFile {
    HandleId id = 0;
    NodeId node = 0;
    std::uint64_t unique = 0;  // of the request that has opened it
    int flags = 0;
    IoMode mode = IoMode::kCached;
    std::uint32_t backing = 0;
    bool released = false;  // the kernel has let go of it: it binds its node's mode no more, and `backing` may be gone
};

struct SavedDirectory {
    NodeId node = 0;
    std::uint64_t unique = 0;
    std::vector<std::string> shown;
};

struct Saved {
    std::map<NodeId, SavedNode> nodes;
    std::map<HandleId, SavedFile> files;
    std::map<HandleId, SavedDirectory> directories;
};

// Thread-safe. One process at a time writes; the supervisor reads numbers only.
class Handover {
  public:
    static constexpr std::size_t kFiles = 3;
    using Files = std::array<std::unique_ptr<File>, kFiles>;

    static Result<std::unique_ptr<Handover>> create();
    // kUnsupported when it is another version's: then this process must not take over.
    static Result<std::unique_ptr<Handover>> adopt(Files files);
    ~Handover();
    std::array<int, kFiles> descriptors() const;

    // ---- the connection
    void keep_init(Bytes request);  // the kernel's INIT, whole; empty Buffer below: there was none yet
    Buffer init() const;
    enum class Tri : std::uint32_t { kUnknown, kYes, kNo };
    void set_resends(bool yes);  // the kernel can send again
    bool resends() const;
    void set_passthrough(bool on);
    Tri passthrough() const;
    void set_ready();  // the mount has answered
    bool ready() const;
    void keep_socket_path(const std::string& path);  // where commands are taken
    std::string socket_path() const;
    void keep_device(const std::string& device);  // of the mount, as in mountinfo ("0:45")
    std::string device() const;                   // empty: not known
    void count_worker();
    std::uint32_t workers() const;  // processes that have served, this one included
    void count_answer();
    std::uint64_t answers() const;
    // Between these two names or contents change otherwise than through the kernel; who dies meanwhile may not have
    // told it. They nest.
    void begin_outside_change();
    void end_outside_change();
    bool outside_change_was_cut();  // and forgets it

    // ---- requests that must not be done twice
    using State = std::array<std::uint64_t, 2>;
    // What `unique` had found when a process before this one began to carry it out.
    std::optional<State> found_before(std::uint64_t unique);
    void found(std::uint64_t unique, const State& state);
    void answered();  // this thread's request

    // ---- the log
    Result<Saved> load();  // once, before anything is noted
    HandleId next_handle();
    void node_made(const SavedNode& node);
    void node_gone(NodeId node);
    void file_opened(const SavedFile& file);
    void file_closed(HandleId file);
    void directory_opened(HandleId handle, NodeId node, std::uint64_t unique);
    // Names at positions from `first` on; what was behind is not shown any more.
    void directory_shown(HandleId handle, std::uint64_t first, const std::vector<std::string>& names);
    void directory_closed(HandleId handle);

  private:
    struct Header;
    Handover() = default;
    Status map(bool fresh);
    void append(std::uint8_t kind, std::uint64_t id, const Buffer& body);
    void compact();  // mutex_ held
    std::unordered_set<std::uint64_t>& live_of(std::uint8_t kind);

    Files files_;
    Header* header_ = nullptr;
    std::mutex mutex_;  // guards the rest; held across a write to memory
    std::unordered_set<std::uint64_t> nodes_, open_files_, open_directories_;
    std::uint64_t end_ = 0, compact_at_ = 0;
};

}  // namespace coral::vfs
