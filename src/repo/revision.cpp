// SPDX-License-Identifier: Apache-2.0
// Revisions: BASE (~[n] | ^[n])*, where BASE is HEAD or @, a branch, a tag, a full or short id (docs/semantics.md,
// "Revisions").
#include <fmt/format.h>

#include <algorithm>

#include "coral/repo/repository.hpp"

namespace coral::repo {
namespace {

constexpr std::size_t kMaxRevision = 4096;
constexpr std::size_t kMinPrefix = 4;
constexpr std::size_t kIdDigits = 64;
constexpr std::size_t kShownCandidates = 8;

Error not_found(std::string_view revision, std::string_view why) {
    return make_error(Errc::kNotFound, fmt::format("{}: {}", revision, why));
}

// The id in lower case when it can be the beginning of one; else empty.
std::string hex_prefix(std::string_view text) {
    if (text.size() < kMinPrefix || text.size() > kIdDigits) return {};
    std::string out;
    for (char c : text) {
        if (c >= 'A' && c <= 'F') c = static_cast<char>(c - 'A' + 'a');
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return {};
        out += c;
    }
    return out;
}

Result<CommitId> peel(Repository& repo, const Ref& ref) {
    if (!ref.annotated) return CommitId::from(ref.target);
    CORAL_TRY(auto tag, repo.tag(TagId::from(ref.target)));
    return tag->target;
}

Result<CommitId> by_id(Repository& repo, std::string_view base, const std::string& prefix) {
    CORAL_TRY(auto found, repo.store().find_prefix(store::Kind::kCommit, prefix, kShownCandidates + 1));
    if (found.size() == 1) return CommitId::from(found[0]);
    if (found.size() > 1) {
        std::string list;
        for (std::size_t i = 0; i < std::min(found.size(), kShownCandidates); ++i) {
            list += (i ? ", " : "") + found[i].hex().substr(0, std::max<std::size_t>(prefix.size() + 4, 12));
        }
        if (found.size() > kShownCandidates) list += ", …";
        return make_error(Errc::kInvalid,
                          fmt::format("{}: ambiguous: begins the ids of {}; give more digits", base, list));
    }
    // The id of an annotated tag stands for its commit.
    CORAL_TRY(auto tags, repo.store().find_prefix(store::Kind::kTag, prefix, 2));
    if (tags.size() == 1) {
        CORAL_TRY(auto tag, repo.tag(TagId::from(tags[0])));
        return tag->target;
    }
    if (tags.size() > 1)
        return make_error(Errc::kInvalid, fmt::format("{}: ambiguous: begins the ids of two tags", base));
    return not_found(base, "no commit has an id that begins so");
}

// Refs that `base` may mean, the first that exists wins. What is written out beats what is short for something,
// branches beat tags, names beat ids: a name that somebody chose is what they mean.
std::vector<std::string> candidates(std::string_view base) {
    std::vector<std::string> names;
    if (base.starts_with("heads/") || base.starts_with("tags/")) names.emplace_back(base);
    if (base.starts_with("branches/")) names.push_back(fmt::format("heads/{}", base.substr(9)));
    names.push_back(fmt::format("heads/{}", base));
    names.push_back(fmt::format("tags/{}", base));
    return names;
}

Result<CommitId> resolve_base(Repository& repo, std::string_view base) {
    if (base == "HEAD" || base == "@") {
        CORAL_TRY(Head head, repo.head());
        if (head.commit) return *head.commit;
        return not_found(base, fmt::format("branch {} has no commit yet", head.branch));
    }
    std::vector<std::string> names = candidates(base);
    for (const std::string& name : names) {
        CORAL_TRY(auto ref, repo.ref(name));
        if (ref) return peel(repo, *ref);
    }
    std::string_view digits = base.starts_with("commits/") ? base.substr(8) : base;
    std::string prefix = hex_prefix(digits);
    for (const std::string& name : names) {
        if (!name.starts_with("heads/")) continue;
        if (repo.branch(name.substr(6))) return not_found(base, "this branch has no commit yet");
    }
    if (!prefix.empty()) return by_id(repo, base, prefix);
    return not_found(base, "no branch, tag or commit of this name");
}

Result<CommitId> parent_of(Repository& repo, const CommitId& id, std::size_t which, std::string_view revision) {
    CORAL_TRY(auto commit, repo.commit(id));
    if (which <= commit->parents.size()) return commit->parents[which - 1];
    if (commit->parents.empty())
        return not_found(revision, fmt::format("{} is a first commit, it has no parent", id.hex().substr(0, 12)));
    return not_found(revision, fmt::format("{} has only {} parent(s)", id.hex().substr(0, 12), commit->parents.size()));
}

}  // namespace

Result<CommitId> Repository::resolve(std::string_view revision) {
    auto bad = [&](std::string_view why) {
        return make_error(Errc::kInvalid, fmt::format("'{}': {}", revision.substr(0, 200), why));
    };
    if (revision.empty()) return bad("an empty revision");
    if (revision.size() > kMaxRevision) return bad("too long for a revision");
    std::size_t at = std::min(revision.find_first_of("~^"), revision.size());
    if (at == 0) return bad("names nothing before the first '~' or '^'");
    if (revision.find("@{") != std::string_view::npos) return bad("forms with @{…} are not supported yet");
    CORAL_TRY(CommitId id, resolve_base(*this, revision.substr(0, at)));
    // Each step goes towards a root, so history bounds the loops whatever the numbers say.
    while (at < revision.size()) {
        char kind = revision[at++];
        if (kind != '~' && kind != '^') return bad("after the name only ~n and ^n are understood");
        std::size_t digits = at;
        std::uint32_t n = 0;
        for (; at < revision.size() && revision[at] >= '0' && revision[at] <= '9'; ++at) {
            if (at - digits >= 9) return bad("the number after '~' or '^' is too large");
            n = n * 10 + static_cast<std::uint32_t>(revision[at] - '0');
        }
        if (at == digits) n = 1;
        if (n == 0) continue;  // ~0 and ^0: the commit itself
        if (kind == '^') {
            CORAL_TRY(id, parent_of(*this, id, n, revision));
            continue;
        }
        for (; n > 0; --n) {
            CORAL_TRY(id, parent_of(*this, id, 1, revision));
        }
    }
    return id;
}

}  // namespace coral::repo
