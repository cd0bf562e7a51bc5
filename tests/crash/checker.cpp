// SPDX-License-Identifier: Apache-2.0
#include "crash/checker.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "coral/base/bytes.hpp"
#include "coral/repo/repository.hpp"
#include "coral/repo/worktree.hpp"
#include "crash/workload.hpp"
#include "support/forwarding_os.hpp"

namespace coral::test {
namespace {

using repo::InodePtr;
using repo::Repository;
using repo::Worktree;

struct Seen {
    std::optional<std::string> content;
    bool incomplete = false;
};

class Checker {
  public:
    Checker(const std::string& dir, const Facts& facts, std::size_t position, Cut cut)
        : os_(cut == Cut::kKill ? "boot-1" : "boot-2"), dir_(dir), facts_(facts), position_(position), cut_(cut) {}

    std::vector<std::string> run();

  private:
    void wrong(std::string what) { wrong_.push_back(std::move(what)); }
    void not_yet_made(const Error& error);
    void check_fsck(bool full);
    void check_refs();
    void check_main(const std::vector<repo::Ref>& refs);
    void check_commit(const CommitFact& fact, const CommitId& id);
    Status collect(const TreeId& tree, const std::string& prefix, std::map<std::string, FileId>& out);
    Status read_stored(const FileId& id, std::string& out);
    void check_files();
    void check_file(const std::string& path, const std::vector<Version>& history, const Seen& seen);
    void check_renames(const std::map<std::string, Seen>& seen);
    Result<Seen> read_path(const std::string& path);
    void check_no_others(const std::string& path);
    void check_usable();
    bool promised(std::size_t done, std::size_t durable) const {
        return (cut_ == Cut::kKill ? done : durable) <= position_;
    }

    ForwardingOs os_;
    const std::string& dir_;
    const Facts& facts_;
    const std::size_t position_;
    const Cut cut_;
    ThreadPool pool_{"check", 1};
    std::unique_ptr<Repository> repo_;
    std::shared_ptr<Worktree> tree_;
    std::vector<std::string> wrong_;
};

std::vector<std::string> Checker::run() {
    auto opened = Repository::open(os_, dir_, small_options());
    if (!opened) {
        not_yet_made(opened.error());
        return wrong_;
    }
    repo_ = *std::move(opened);
    check_fsck(true);
    check_refs();
    auto tree = Worktree::open(*repo_, "main", pool_);
    if (!tree) {
        wrong("worktree: " + tree.error().message);
        return wrong_;
    }
    tree_ = *std::move(tree);
    check_files();
    check_usable();
    return wrong_;
}

void Checker::not_yet_made(const Error& error) {
    if (facts_.initialised <= position_) {
        wrong("open: " + error.message);
        return;
    }
    auto made = Repository::init(os_, dir_, small_options());
    if (!made) wrong("neither a repository nor a place for one: " + error.message + "; " + made.error().message);
}

void Checker::check_fsck(bool full) {
    auto problems = repo_->fsck(full, [](std::uint64_t, std::uint64_t) {});
    if (!problems) {
        wrong("fsck: " + problems.error().message);
        return;
    }
    for (const store::Problem& problem : *problems) {
        if (problem.severity != store::Problem::Severity::kWarning) wrong("fsck: " + problem.what);
    }
}

void Checker::check_refs() {
    auto refs = repo_->refs("");
    if (!refs) {
        wrong("refs: " + refs.error().message);
        return;
    }
    check_main(*refs);
    for (const RefFact& fact : facts_.refs) {
        auto found =
            std::find_if(refs->begin(), refs->end(), [&](const repo::Ref& ref) { return ref.name == fact.name; });
        if (found == refs->end()) {
            if (fact.done <= position_) wrong(fact.name + ": lost");
        } else if (CommitId::from(found->target) != fact.target) {
            wrong(fact.name + ": points elsewhere");
        }
    }
    for (const repo::Ref& ref : *refs) {
        bool known = ref.name == "heads/main";
        for (const RefFact& fact : facts_.refs) known = known || (fact.name == ref.name && fact.begun < position_);
        if (!known) wrong(ref.name + ": nobody made it");
    }
}

void Checker::check_main(const std::vector<repo::Ref>& refs) {
    std::optional<CommitId> tip;
    for (const repo::Ref& ref : refs) {
        if (ref.name == "heads/main") tip = CommitId::from(ref.target);
    }
    std::size_t least = 0;  // commits that were acknowledged, and all before them
    for (std::size_t i = 0; i < facts_.commits.size(); ++i) {
        if (facts_.commits[i].done <= position_) least = i + 1;
    }
    bool fits = !tip && least == 0;
    for (std::size_t i = 0; i < facts_.commits.size(); ++i) {
        const CommitFact& fact = facts_.commits[i];
        if (fact.begun >= position_) break;
        if (fact.done <= position_ && fact.id) check_commit(fact, *fact.id);
        bool may_be_tip = i + 1 >= least && (!fact.id || fact.id == tip);
        if (tip && may_be_tip && !fits) {
            fits = true;
            if (fact.done > position_) check_commit(fact, *tip);
        }
    }
    if (!fits)
        wrong(
            fmt::format("main: at {}, {} commits were acknowledged", tip ? tip->hex().substr(0, 8) : "nothing", least));
}

Status Checker::collect(const TreeId& id, const std::string& prefix, std::map<std::string, FileId>& out) {
    CORAL_TRY(auto tree, repo_->tree(id));
    for (const repo::TreeEntry& entry : tree->entries) {
        if (entry.type == repo::EntryType::kDirectory) {
            CORAL_CHECK(collect(TreeId::from(entry.content), prefix + entry.name + "/", out));
        } else {
            out[prefix + entry.name] = FileId::from(entry.content);
        }
    }
    return {};
}

Status Checker::read_stored(const FileId& id, std::string& out) {
    CORAL_TRY(auto record, repo_->store().file(id));
    out.resize(record->size);
    CORAL_TRY(std::size_t got, repo_->store().read_file(*record, 0, std::as_writable_bytes(std::span(out))));
    if (got != out.size()) return make_error(Errc::kCorrupt, "shorter than its record says");
    return {};
}

void Checker::check_commit(const CommitFact& fact, const CommitId& id) {
    std::string name = "commit " + id.hex().substr(0, 8);
    std::map<std::string, FileId> files;
    auto commit = repo_->commit(id);
    Status walked = commit ? collect((*commit)->tree, "", files) : Status(std::move(commit).error());
    if (!walked) {
        wrong(name + ": " + walked.error().message);
        return;
    }
    for (const auto& [path, content] : fact.files) {
        if (fact.unknown.count(path)) continue;
        std::string stored;
        auto found = files.find(path);
        if (found == files.end()) {
            wrong(fmt::format("{}: {} is missing", name, path));
        } else if (Status read = read_stored(found->second, stored); !read) {
            wrong(fmt::format("{}: {}: {}", name, path, read.error().message));
        } else if (stored != content) {
            wrong(fmt::format("{}: {} holds other bytes", name, path));
        }
    }
    for (const auto& [path, file] : files) {
        if (!fact.files.count(path) && !fact.unknown.count(path))
            wrong(fmt::format("{}: {} should not be in it", name, path));
    }
}

Result<Seen> Checker::read_path(const std::string& path) {
    auto inode = tree_->lookup_path(path);
    if (!inode && inode.error().code == Errc::kNotFound) return Seen{};
    if (!inode) return std::move(inode).error();
    repo::Attributes attributes = tree_->attributes(*inode);
    Seen seen{std::string(attributes.size, '\0'), attributes.incomplete};
    CORAL_TRY(std::size_t got, tree_->read(*inode, 0, std::as_writable_bytes(std::span(*seen.content))));
    if (got != attributes.size) return make_error(Errc::kCorrupt, "shorter than its size says");
    return seen;
}

void Checker::check_files() {
    std::map<std::string, Seen> seen;
    for (const auto& [path, history] : facts_.files) {
        auto read = read_path(path);
        if (!read) {
            wrong(fmt::format("{}: cannot be read: {}", path, read.error().message));
            continue;
        }
        seen[path] = *read;
        check_file(path, history, *read);
    }
    check_renames(seen);
    check_no_others("");
}

// Every byte is zero or what some version has at its place: for files that say of themselves that they are incomplete.
// Zeros only where nothing was promised, or all of it was overwritten.
bool is_mixture(const std::string& content, const std::vector<const Version*>& candidates) {
    const bool in_place = std::all_of(candidates.begin() + 1, candidates.end(), [](auto* v) { return v->in_place; });
    const std::size_t promised = in_place && candidates[0]->content ? candidates[0]->content->size() : 0;
    for (std::size_t at = 0; at < content.size(); ++at) {
        bool known = content[at] == '\0' && at >= promised;
        for (const Version* version : candidates) {
            known =
                known || (version->content && at < version->content->size() && (*version->content)[at] == content[at]);
        }
        if (!known) return false;
    }
    return true;
}

void Checker::check_file(const std::string& path, const std::vector<Version>& history, const Seen& seen) {
    static const Version kAbsent{std::nullopt, 0, 0, 0, false};
    std::vector<const Version*> candidates{&kAbsent};
    bool anything = false;
    for (const Version& version : history) {
        if (version.begun >= position_) break;
        if (promised(version.done, version.durable)) {
            candidates.clear();
            anything = false;
        }
        candidates.push_back(&version);
        anything = anything || version.failed;
    }
    if (anything) return;
    for (const Version* version : candidates) {
        if (version->content == seen.content) return;
    }
    if (seen.incomplete && candidates.size() > 1 && seen.content && is_mixture(*seen.content, candidates)) return;
    std::string what = seen.content
                           ? fmt::format("{} bytes{}", seen.content->size(), seen.incomplete ? ", incomplete" : "")
                           : "absent";
    std::string wanted;
    for (const Version* version : candidates) {
        wanted += version->content ? fmt::format(" {}", version->content->size()) : " absent";
    }
    wrong(fmt::format("{}: {}; may be:{}", path, what, wanted));
}

void Checker::check_renames(const std::map<std::string, Seen>& seen) {
    for (const Rename& rename : facts_.renames) {
        if (rename.begun >= position_ || !seen.count(rename.from) || !seen.count(rename.to)) continue;
        bool moved_on = false;  // either name had another life before the cut
        for (const std::string& path : {rename.from, rename.to}) {
            for (const Version& version : facts_.files.at(path)) {
                bool own = version.content == rename.content || (path == rename.from && !version.content);
                moved_on = moved_on ||
                           (version.begun >= rename.begun && version.begun < position_ && (!own || version.failed));
            }
        }
        if (moved_on) continue;
        int places = (seen.at(rename.from).content == rename.content) + (seen.at(rename.to).content == rename.content);
        if (places != 1) wrong(fmt::format("{} is in {} places after its rename", rename.from, places));
    }
}

void Checker::check_no_others(const std::string& path) {
    auto dir = tree_->lookup_path(path);
    if (!dir) {
        if (path.empty()) wrong("root: " + dir.error().message);
        return;
    }
    auto entries = tree_->list(*dir, "", 1000);
    if (!entries) {
        wrong(path + ": cannot be listed: " + entries.error().message);
        return;
    }
    for (const repo::DirEntry& entry : *entries) {
        std::string child = path.empty() ? entry.name : path + "/" + entry.name;
        if (entry.attributes.type == FileType::kDirectory)
            check_no_others(child);
        else if (!facts_.files.count(child))
            wrong(child + ": nobody made it");
    }
}

void Checker::check_usable() {
    auto use = [&]() -> Status {
        std::string content = noise(20'000, position_);
        CORAL_TRY(InodePtr inode, tree_->create_file(tree_->root(), "after.bin", 0644, 0, 0));
        CORAL_CHECK(tree_->open_file(inode, true, false));
        Status written = tree_->write(inode, 0, as_bytes(content));
        if (written) written = tree_->flush(inode, true);
        tree_->close_file(inode, true);
        CORAL_CHECK(written);
        repo::CommitOptions options;
        options.message = "after";
        options.allow_open = true;  // files that the crash interrupted stay out of it
        options.author = repo::Person{"A", "a@b", 1, 0};
        CORAL_TRY(repo::CommitResult made, tree_->commit(options));
        inode.reset();
        tree_.reset();
        repo_.reset();
        CORAL_TRY(repo_, Repository::open(os_, dir_, small_options()));
        CORAL_TRY(CommitId tip, repo_->resolve("main"));
        if (tip != made.id) return make_error(Errc::kCorrupt, "the new commit is not the branch's");
        CORAL_TRY(auto commit, repo_->commit(tip));
        CORAL_TRY(repo::TreeEntry entry, repo_->entry_at(commit->tree, "after.bin"));
        std::string stored;
        CORAL_CHECK(read_stored(FileId::from(entry.content), stored));
        if (stored != content) return make_error(Errc::kCorrupt, "the new file holds other bytes");
        return {};
    };
    Status used = use();
    if (!used) {
        wrong("not usable: " + used.error().message);
        return;
    }
    check_fsck(false);
}

}  // namespace

std::vector<std::string> check_repository(const std::string& dir, const Facts& facts, std::size_t position, Cut cut) {
    return Checker(dir, facts, position, cut).run();
}

}  // namespace coral::test
