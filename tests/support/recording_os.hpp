// SPDX-License-Identifier: Apache-2.0
// An Os that keeps a log of every change below one directory, SQLite's included, and can make any of them fail. The log
// is what a power cut is played from (power_cut.hpp).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/sqlite_shim.hpp"
#include "coral/base/bytes.hpp"
#include "support/forwarding_os.hpp"

namespace coral::test {

// Numbers that stand for files and directories whatever they are called; the recorded directory itself is kRootNode.
using NodeId = std::uint64_t;
inline constexpr NodeId kNoNode = 0;
inline constexpr NodeId kRootNode = 1;

enum class Change : std::uint8_t {
    kCreate,         // node appears as name in directory
    kMakeDirectory,  // the same
    kRemove,         // name goes from directory (a file or an empty directory)
    kRename,         // node goes from name in directory to new_name in new_directory, replacing what is there
    kWrite,
    kTruncate,
    kChangeMode,
    kSync,           // data and size of node
    kSyncFailed,     // the same, but it failed: the kernel forgets what it could not write and never tries again
    kSyncDirectory,  // the names in node
    kMark,           // put in by a test
};
std::string_view change_name(Change change);

struct Operation {
    Change change{};
    NodeId node = kNoNode, directory = kNoNode, new_directory = kNoNode;
    std::string name, new_name;
    std::uint64_t offset = 0;  // kWrite; the size of kTruncate; the mode of kChangeMode
    Buffer data;
    std::string path;  // for people
};
std::string to_string(const Operation& operation);

struct Fault {
    std::uint64_t at = 0;   // the mutation that fails, counted from 0
    bool for_ever = false;  // and all that follow
    Errc code = Errc::kIo;
    bool short_write = true;  // a failing write has written its first half
};

// What a disk that answers "done" to a sync has not done: the proof that the checkers notice.
struct Lies {
    bool files = false;        // fdatasync of files that are not SQLite's
    bool directories = false;  // sync of a directory
    bool sqlite = false;       // SQLite's syncs
};

// Thread-safe. Files outside of `root` are passed through. Syncs are recorded but not done: the tests decide what a
// power cut leaves, not the disk they run on.
class RecordingOs final : public ForwardingOs, private SqliteObserver {
  public:
    // `root` must exist and be empty, an absolute path without symlinks.
    explicit RecordingOs(std::string root, std::string boot = "boot-1");
    ~RecordingOs() override;

    Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override;
    Status rename(const std::string& from, const std::string& to) override;
    Status remove(const std::string& path) override;
    Status remove_dir(const std::string& path) override;
    Status make_dir(const std::string& path, std::uint32_t mode) override;
    Status sync_dir(const std::string& path) override;
    std::string sqlite_vfs() const override { return shim_.name(); }

    // Puts a mark into the log; returns the number of operations up to and with it.
    std::size_t mark(std::string text);
    std::size_t position() const;
    const std::vector<Operation>& log() const { return log_; }  // once all that wrote has ended

    void set_fault(const std::optional<Fault>& fault);  // counts mutations from 0 again
    std::uint64_t mutations() const;                    // since set_fault
    std::uint64_t faults() const;                       // mutations that were made to fail since set_fault
    void set_lies(const Lies& lies) { lies_ = lies; }

  private:
    friend class RecordingFile;
    struct Place {  // of a name below root
        NodeId directory = kNoNode;
        std::string name;
    };
    using Act = std::function<Status()>;

    std::optional<Place> place(const std::string& path) const;  // nothing: not ours, or its directory is unknown
    NodeId node_at(const Place& place) const;
    NodeId find(const std::string& path) const;
    Status change(Operation operation, const Act& act);  // counts, fails, acts, records; mutex_ held
    std::optional<Errc> next_fault();
    void record(Operation operation);
    Status add_node(Change kind, const std::string& path, NodeId& node, const Act& act);
    Status take_name(const std::string& path, const Act& act);

    Status write(NodeId node, const std::string& path, std::uint64_t offset, Bytes data,
                 const std::function<Status(Bytes)>& act);
    Status truncate(NodeId node, const std::string& path, std::uint64_t size, const Act& act);
    Status change_mode(NodeId node, const std::string& path, std::uint32_t mode, const Act& act);
    Status sync(NodeId node, const std::string& path, bool lie);
    std::string sqlite_path(NodeId file) const;

    Result<std::uint64_t> sqlite_open(const std::string& path, bool may_create, const Perform& perform) override;
    Status sqlite_write(std::uint64_t file, std::uint64_t offset, Bytes data,
                        const std::function<Status(Bytes)>& perform) override;
    Status sqlite_truncate(std::uint64_t file, std::uint64_t size, const Perform& perform) override;
    Status sqlite_sync(std::uint64_t file, bool directory, const Perform& perform) override;
    Status sqlite_remove(const std::string& path, bool sync_directory, const Perform& perform) override;

    const std::string root_;
    mutable std::mutex mutex_;  // guards all below; held across each change, so that the log's order is the true one
    std::vector<Operation> log_;
    std::map<NodeId, std::map<std::string, NodeId>> directories_;
    std::map<NodeId, std::string> paths_;  // as first seen, for people
    NodeId next_node_ = kRootNode + 1;
    std::optional<Fault> fault_;
    std::uint64_t mutations_ = 0, faults_ = 0;
    Lies lies_;
    SqliteShim shim_;
};

}  // namespace coral::test
