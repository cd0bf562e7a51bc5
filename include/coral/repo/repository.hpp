// SPDX-License-Identifier: Apache-2.0
// A repository: a directory with packs (truth of bytes), state.db (truth of names) and what can be rebuilt.
// Thread-safe; several processes may have it open. Who may change a branch's files is a Worktree's matter
// (worktree.hpp).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "coral/base/os.hpp"
#include "coral/repo/objects.hpp"
#include "coral/store/store.hpp"

namespace coral {
class Database;
class ThreadPool;
}  // namespace coral

namespace coral::repo {

class BaseIndex;  // src/repo/base_index.hpp: finds tensors that look alike
class Pins;       // src/repo/pins.hpp: contents that this process uses without a name
class State;      // src/repo/state.hpp: the connections to state.db
class Worktree;   // worktree.hpp

struct RepositoryOptions {
    store::StoreOptions store;
    bool read_only = false;
};

// Refs live under "heads/" and "tags/"; names follow git's check-ref-format. '/' nests.
struct Ref {
    std::string name;  // "heads/main", "tags/v1.0"
    AnyId target;      // a commit, or a tag object for an annotated tag
    bool annotated = false;
};

struct Head {
    std::string branch;              // "main"; empty when detached
    std::optional<CommitId> commit;  // nothing on an unborn branch
};

struct ReflogEntry {
    std::int64_t seq = 0;
    std::string ref;
    AnyId old_target, new_target;  // zero: none
    std::string actor, reason;
    std::int64_t time_ns = 0;
};

// A branch exists if it has a worktree row; one without a commit is unborn.
struct Branch {
    std::string name;
    std::optional<CommitId> commit;
    Uuid worktree;
};

struct RefUpdate {
    std::string name;
    std::optional<AnyId> expected;  // compare-and-swap: what it must be now; zero: must not exist; nothing: any
    AnyId target;                   // zero: delete
    bool annotated = false;
    std::string reason;  // for the reflog: "commit: epoch 7"
    bool fresh = false;  // the caller has put the target and all of it in the session that it still has
};

struct GcOptions {
    // ns since 1970. Older entries of the reflog do not count, nor are packs spared that were not written to since.
    std::int64_t prune_before = 0;
    bool dry_run = false;
    std::chrono::milliseconds patience{20'000};
    std::function<void(const std::string& what)> step;
    std::function<void(std::uint64_t done, std::uint64_t total)> progress;
    std::function<bool()> cancelled;
};

struct GcReport {
    store::CollectReport packs;
    std::uint64_t live_objects = 0;
    std::uint64_t expired_entries = 0;  // of the reflog
};

struct RepackOptions {
    bool all = false;  // encodes every segment, not only those that are expected to become smaller
    bool dry_run = false;
    std::chrono::milliseconds patience{20'000};
    std::function<void(std::uint64_t done, std::uint64_t total)> progress;  // bytes of files
    std::function<void(std::uint64_t done, std::uint64_t total)> copying;   // bytes of packs
    std::function<bool()> cancelled;
};

struct RepackReport {
    std::uint64_t files = 0, segments = 0;            // looked at
    std::uint64_t files_cut = 0;                      // anew, by a better parser
    std::uint64_t segments_encoded = 0;               // anew, and smaller
    std::uint64_t segments_saved = 0;                 // bytes of records, by these
    std::uint64_t before_bytes = 0, after_bytes = 0;  // of all pack files
    store::CollectReport packs;
    std::vector<std::string> skipped;  // what could not be looked at, and why
};

// "90s", "30m", "24h", "7d", "2w" in ns.
std::optional<std::int64_t> parse_duration(std::string_view text);

bool valid_branch_name(std::string_view name);  // also for tags

class Repository {
  public:
    // DIR is made (parents too) or must be empty. Branch `main`, unborn. kExists when it already is a repository.
    static Result<std::unique_ptr<Repository>> init(Os& os, const std::string& dir, const RepositoryOptions& options,
                                                    const std::string& branch = "main");
    static Result<std::unique_ptr<Repository>> open(Os& os, const std::string& dir, const RepositoryOptions& options);
    // The repository that `path` is or lies in (looks for FORMAT upward).
    static Result<std::string> discover(Os& os, const std::string& path);
    ~Repository();

    Os& os() const { return os_; }
    const std::string& dir() const { return dir_; }  // absolute
    const Uuid& uuid() const { return uuid_; }
    store::Store& store() const { return *store_; }
    State& state() const { return *state_; }
    BaseIndex& base_index() const { return *base_index_; }
    bool read_only() const { return read_only_; }

    // ---- objects. Trees and commits are cached (bounded).
    Result<std::shared_ptr<const Tree>> tree(const TreeId& id);
    Result<std::shared_ptr<const Commit>> commit(const CommitId& id);
    Result<std::shared_ptr<const Tag>> tag(const TagId& id);
    Result<TreeId> put_tree(const Tree& tree);
    Result<CommitId> put_commit(const Commit& commit);
    Result<TagId> put_tag(const Tag& tag);
    Result<Xattrs> xattrs(const SegmentId& id);          // empty for the zero id
    Result<SegmentId> put_xattrs(const Xattrs& xattrs);  // zero for empty
    // Entry at `path` ("a/b", "" is the root as a directory entry) in a tree. kNotFound names the path.
    Result<TreeEntry> entry_at(const TreeId& root, std::string_view path);

    // ---- names
    Result<Head> head();
    Status set_head_branch(const std::string& branch);  // must exist
    Status set_head_detached(const CommitId& commit);
    Result<std::vector<Ref>> refs(std::string_view prefix);  // "heads/", "tags/", ""; sorted
    Result<std::optional<Ref>> ref(const std::string& name);
    // One transaction under `lock`: compare all, append REF hints, sync the packs, move all, write the reflog, FULL
    // commit. kConflict when a compare fails. `also` runs inside the transaction (a worktree's rows move with its ref).
    Status update_refs(const std::vector<RefUpdate>& updates, const std::function<Status(Database&)>& also = {});
    Result<std::vector<ReflogEntry>> reflog(const std::string& ref, std::size_t limit);
    Result<std::vector<Branch>> branches();
    Result<Branch> branch(const std::string& name);  // kNotFound names it
    // A new branch at `commit` (or unborn). kExists; kInvalid for a bad name or one that is a folder of another branch.
    Status create_branch(const std::string& name, const std::optional<CommitId>& commit, const std::string& reason);
    // Its ref, its worktree rows, staging and lock file go. The caller has checked for changes. kBusy while anybody
    // owns the worktree, this process included: it must have been given back.
    Status delete_branch(const std::string& name, const std::string& reason);
    // kBusy while anybody owns the worktree: owners commit to the name under which they opened it.
    Status rename_branch(const std::string& from, const std::string& to);

    // Revision grammar: HEAD, branch, tag, full or unambiguous short id (≥ 4 hex), then ~n and ^n in any order.
    // kNotFound or kInvalid ("ambiguous: …") name the revision.
    Result<CommitId> resolve(std::string_view revision);
    // Newest first by commit time, parents after children; `visit` returns false to stop.
    Status walk(const std::vector<CommitId>& from,
                const std::function<Result<bool>(const CommitId&, const Commit&)>& visit);
    // The newest `limit` commits known (any branch or tag), for `ls commits/`.
    Result<std::vector<CommitId>> recent_commits(std::size_t limit);

    // ---- settings: coral.toml of the repository over ~/.config/coral/config.toml; "user.name", "store.cache_mib" …
    Result<std::optional<std::string>> config(const std::string& key);
    Status set_config(const std::string& key, const std::optional<std::string>& value, bool global);
    Result<std::vector<std::pair<std::string, std::string>>> all_config();
    // CORAL_AUTHOR_NAME / _EMAIL, else config user.name / user.email, else the login name @ host; never fails for lack
    // of one.
    Result<Person> identity();

    // Removes what nothing leads to. kBusy while another one runs, or when others do not stop storing for long enough.
    Result<GcReport> gc(const GcOptions& options);
    // Stores what is there in fewer bytes: files are cut anew where a parser has become better, tensors get better
    // bases, and packs are written anew without what was replaced. Every file keeps its bytes and its name. kBusy as
    // gc.
    Result<RepackReport> repack(ThreadPool& pool, const RepackOptions& options);
    Result<std::int64_t> gc_grace();  // setting gc.grace, in ns; 24 hours
    // For as long as the result lives, gc of any process takes this content for used, whatever becomes of its name.
    std::shared_ptr<void> pin(const FileId& id);

    // Objects that a ref, HEAD, the reflog or a worktree reaches but the store lacks or cannot read; with `full` every
    // byte.
    Result<std::vector<store::Problem>> fsck(bool full,
                                             const std::function<void(std::uint64_t, std::uint64_t)>& progress);

  private:
    Repository(Os& os, std::string dir, bool read_only);
    friend class RepositoryBuilder;
    struct Caches;
    Result<std::unique_ptr<File>> begin_removal(bool dry_run);
    Result<GcReport> collect(const GcOptions& options, bool replace);
    Status check_whole(const std::vector<RefUpdate>& updates);
    Os& os_;
    std::string dir_;
    Uuid uuid_;
    bool read_only_;
    std::unique_ptr<store::Store> store_;
    std::unique_ptr<State> state_;
    std::unique_ptr<BaseIndex> base_index_;
    std::unique_ptr<Caches> caches_;
    std::shared_ptr<Pins> pins_;
};

}  // namespace coral::repo
