// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <unordered_map>
#include <unordered_set>

#include "cli/branch_access.hpp"
#include "cli/command.hpp"
#include "cli/json.hpp"
#include "cli/text.hpp"
#include "coral/base/os.hpp"

namespace coral::cli {
namespace {

struct Figures {
    std::uint64_t commits = 0, branches = 0, tags = 0;
    std::uint64_t files = 0;          // different contents
    std::uint64_t logical_bytes = 0;  // every path of every commit, and what is not committed yet
    std::uint64_t unique_bytes = 0;   // different contents once
    std::uint64_t uncommitted_bytes = 0, staging_bytes = 0, pending_ingest = 0, hot_bytes = 0;
    store::StoreStats store;
    std::vector<std::string> unread;  // branches whose uncommitted files could not be asked for
};

class Counter {
  public:
    Counter(repo::Repository& repository, Figures& figures) : repository_(repository), figures_(figures) {}

    Status history() {
        CORAL_TRY(auto branches, repository_.branches());
        CORAL_TRY(auto tags, repository_.refs("tags/"));
        CORAL_TRY(repo::Head head, repository_.head());
        figures_.branches = branches.size();
        figures_.tags = tags.size();
        std::vector<CommitId> from;
        for (const repo::Branch& branch : branches) {
            if (branch.commit) from.push_back(*branch.commit);
        }
        for (const repo::Ref& tag : tags) {
            CORAL_TRY(CommitId id, repository_.resolve(tag.name));
            from.push_back(id);
        }
        if (head.commit) from.push_back(*head.commit);
        if (from.empty()) return {};
        return repository_.walk(from, [&](const CommitId&, const repo::Commit& commit) -> Result<bool> {
            ++figures_.commits;
            CORAL_TRY(std::uint64_t bytes, bytes_of(commit.tree));
            figures_.logical_bytes += bytes;
            return true;
        });
    }

    void content(const AnyId& id, std::uint64_t size) {
        if (!contents_.insert(id).second) return;
        ++figures_.files;
        figures_.unique_bytes += size;
    }

  private:
    // Each tree is read once, however many commits have it. Children first, without recursion.
    Result<std::uint64_t> bytes_of(const TreeId& top) {
        std::vector<TreeId> todo{top};
        while (!todo.empty()) {
            TreeId id = todo.back();
            if (bytes_.contains(id)) {
                todo.pop_back();
                continue;
            }
            CORAL_TRY(auto tree, repository_.tree(id));
            std::uint64_t sum = 0;
            bool complete = true;
            for (const repo::TreeEntry& entry : tree->entries) {
                if (entry.type == repo::EntryType::kFile) {
                    sum += entry.size;
                    content(entry.content, entry.size);
                } else if (entry.type == repo::EntryType::kDirectory) {
                    auto below = bytes_.find(TreeId::from(entry.content));
                    if (below != bytes_.end())
                        sum += below->second;
                    else
                        todo.push_back(TreeId::from(entry.content));
                    complete = complete && below != bytes_.end();
                }
            }
            if (!complete) continue;
            bytes_.emplace(id, sum);
            todo.pop_back();
        }
        return bytes_.at(top);
    }

    repo::Repository& repository_;
    Figures& figures_;
    std::unordered_map<TreeId, std::uint64_t> bytes_;
    std::unordered_set<AnyId> contents_;
};

Status count_uncommitted(Context& context, repo::Repository& repository, Counter& counter, Figures& figures) {
    CORAL_TRY(auto branches, repository.branches());
    for (const repo::Branch& branch : branches) {
        auto status = branch_status(context, branch.name);
        if (!status) {
            figures.unread.push_back(branch.name);
            continue;
        }
        for (const repo::Change& change : status->changes) {
            if (change.directory || change.kind == repo::ChangeKind::kDeleted) continue;
            figures.uncommitted_bytes += change.new_size;
            if (!change.new_content.is_zero()) counter.content(change.new_content, change.new_size);
        }
    }
    figures.logical_bytes += figures.uncommitted_bytes;
    return {};
}

// As they lie on the disk: staging files may have holes. Each worktree has a folder of its own.
std::uint64_t staging_bytes(repo::Repository& repository) {
    std::string top = path_join(repository.dir(), "staging");
    std::uint64_t bytes = 0;
    auto worktrees = repository.os().list_dir(top);
    if (!worktrees) return 0;
    for (const std::string& worktree : *worktrees) {
        std::string dir = path_join(top, worktree);
        auto names = repository.os().list_dir(dir);
        if (!names) continue;
        for (const std::string& name : *names) {
            if (auto stat = repository.os().lstat(path_join(dir, name))) bytes += stat->blocks * 512;
        }
    }
    return bytes;
}

Result<Figures> gather(Context& context) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    Figures figures;
    Counter counter(*repository, figures);
    CORAL_CHECK(counter.history());
    CORAL_CHECK(count_uncommitted(context, *repository, counter, figures));
    control::DaemonInfo daemon;
    if (find_daemon(*repository, &daemon)) {
        figures.pending_ingest = daemon.pending_ingest;
        figures.hot_bytes = daemon.hot_bytes;
    }
    figures.staging_bytes = staging_bytes(*repository);
    CORAL_TRY(figures.store, repository->store().stats());
    return figures;
}

double ratio_of(const Figures& f) {
    return f.store.pack_bytes ? static_cast<double>(f.logical_bytes) / static_cast<double>(f.store.pack_bytes) : 0;
}

Json to_json(const Figures& f) {
    Json out = json_document("stats");
    out["commits"] = f.commits;
    out["branches"] = f.branches;
    out["tags"] = f.tags;
    out["files"] = f.files;
    out["logical_bytes"] = f.logical_bytes;
    out["unique_bytes"] = f.unique_bytes;
    out["uncommitted_bytes"] = f.uncommitted_bytes;
    out["stored_bytes"] = f.store.pack_bytes;
    out["ratio"] = ratio_of(f);
    out["packs"] = f.store.packs;
    out["sealed_packs"] = f.store.sealed_packs;
    out["staging_bytes"] = f.staging_bytes;
    out["pending_ingest"] = f.pending_ingest;
    out["hot_bytes"] = f.hot_bytes;
    out["kinds"] = Json::object();
    for (const auto& [kind, count] : f.store.objects) {
        auto find = [kind = kind](const auto& map) { return map.contains(kind) ? map.at(kind) : 0; };
        out["kinds"][std::string(store::kind_name(kind))] = {{"objects", count},
                                                             {"stored_bytes", find(f.store.stored_by_kind)},
                                                             {"raw_bytes", find(f.store.raw_by_kind)}};
    }
    out["cache"] = {{"hits", f.store.cache_hits}, {"misses", f.store.cache_misses}, {"bytes", f.store.cache_bytes}};
    out["unread_branches"] = Json::array();
    for (const std::string& name : f.unread) out["unread_branches"].push_back(to_utf8(name));
    return out;
}

void print_text(Context& context, const Figures& f) {
    Table table({false, true});
    table.row({"commits", fmt::format("{}", f.commits)});
    table.row({"branches", fmt::format("{}", f.branches)});
    table.row({"tags", fmt::format("{}", f.tags)});
    table.row({"different files", fmt::format("{}", f.files)});
    table.row({"all files of all commits", size_text(f.logical_bytes)});
    table.row({"different files once", size_text(f.unique_bytes)});
    table.row({"not committed", size_text(f.uncommitted_bytes)});
    table.row({"in packs", size_text(f.store.pack_bytes),
               fmt::format("({}, {} sealed)", count_text(f.store.packs, "pack"), f.store.sealed_packs)});
    table.row({"ratio", fmt::format("{:.2f}x", ratio_of(f))});
    std::string what;
    if (f.pending_ingest) what = fmt::format("({} being stored)", count_text(f.pending_ingest, "file"));
    if (!f.pending_ingest && f.hot_bytes) what = "(stored; kept plain for its next reader, see mount-info)";
    table.row({"staging", size_text(f.staging_bytes), what});
    context.out.write(table.text());
    for (const std::string& name : f.unread) {
        context.out.warn(fmt::format("branch {} is busy: its uncommitted files are not counted", quote_name(name)));
    }
}

Result<int> run(Context& context) {
    CORAL_TRY(Figures figures, gather(context));
    if (context.json())
        print_json(context.out, to_json(figures));
    else
        print_text(context, figures);
    return kOk;
}

}  // namespace

const Command& stats_command() {
    static const Command command{
        "stats",
        "Looking after a repository",
        "tell what the repository holds and costs",
        "stats [--json]",
        "Counts commits and files, and compares the bytes of all files of all commits with the bytes of\n"
        "the packs. What the index and state databases take is not counted.",
        "coral stats\n"
        "coral -C models.coral stats --json",
        {kJsonOption},
        0,
        0,
        run,
    };
    return command;
}

}  // namespace coral::cli
