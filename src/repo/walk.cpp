// SPDX-License-Identifier: Apache-2.0
// Walking history, newest first. Commits come by committer time, but a parent never before a child that is known by
// then, so that a wrong clock does not turn history around. To know of children, exploring runs ahead of visiting by
// kAhead commits: the order is exact unless a clock error is bridged by more commits than that. Generation numbers
// would make it exact always, at the price of a table to keep; memory and work are bounded by what is visited plus
// kAhead.
#include <fmt/format.h>

#include <algorithm>
#include <queue>
#include <unordered_map>

#include "coral/base/log.hpp"
#include "coral/repo/repository.hpp"

namespace coral::repo {
namespace {

constexpr std::size_t kAhead = 64;

class Walker {
  public:
    explicit Walker(Repository& repo) : repo_(repo) {}

    Status start(const CommitId& id) { return discover(id, false); }

    // The next commit, or nothing at the end. The id stays valid until the next call.
    Result<bool> next(CommitId& id, std::shared_ptr<const Commit>& commit) {
        while (true) {
            while (must_explore()) CORAL_CHECK(explore());
            if (ready_.empty()) return false;
            CommitId candidate = ready_.top().id;
            ready_.pop();
            Node& node = nodes_.at(candidate);
            // Since it became ready a child may have been found (it comes back with that), or it was pushed twice.
            if (node.visited || node.children > 0) continue;
            node.visited = true;
            --ahead_;
            id = candidate;
            commit = std::move(node.commit);
            for (const CommitId& parent : commit->parents) release(parent);
            return true;
        }
    }

  private:
    struct Node {
        std::shared_ptr<const Commit> commit;
        std::uint64_t order = 0;     // of discovery
        std::uint32_t children = 0;  // known and not visited
        bool explored = false;       // its parents are known
        bool visited = false;
    };
    struct Entry {
        std::int64_t time = 0;
        std::uint64_t order = 0;
        CommitId id;
        // Of equal times what was found first: children are found before their parents.
        bool operator<(const Entry& other) const {
            return time != other.time ? time < other.time : order > other.order;
        }
    };

    static Entry entry(const CommitId& id, const Node& node) {
        return {node.commit->committer.time_ns, node.order, id};
    }

    bool must_explore() const {
        if (frontier_.empty()) return false;
        return ahead_ < kAhead || ready_.empty() || ready_.top() < frontier_.top();
    }

    Status discover(const CommitId& id, bool as_parent) {
        auto [at, fresh] = nodes_.try_emplace(id);
        Node& node = at->second;
        if (fresh) {
            auto commit = repo_.commit(id);
            if (!commit) {
                nodes_.erase(at);
                return std::move(commit).error();
            }
            node.commit = std::move(*commit);
            node.order = next_order_++;
            frontier_.push(entry(id, node));
        }
        if (as_parent && !node.visited) ++node.children;
        return {};
    }

    Status explore() {
        CommitId id = frontier_.top().id;
        frontier_.pop();
        auto commit = nodes_.at(id).commit;  // discover() may move the table
        for (const CommitId& parent : commit->parents) CORAL_CHECK(discover(parent, true));
        Node& node = nodes_.at(id);
        node.explored = true;
        ++ahead_;
        if (node.children == 0) ready_.push(entry(id, node));
        return {};
    }

    void release(const CommitId& parent) {
        Node& node = nodes_.at(parent);
        // 0: it was visited before this child was found (a clock error beyond kAhead).
        if (node.children == 0) return;
        if (--node.children == 0 && node.explored && !node.visited) ready_.push(entry(parent, node));
    }

    Repository& repo_;
    std::unordered_map<CommitId, Node> nodes_;
    std::priority_queue<Entry> frontier_, ready_;
    std::uint64_t next_order_ = 0;
    std::size_t ahead_ = 0;  // explored and not visited
};

}  // namespace

Status Repository::walk(const std::vector<CommitId>& from,
                        const std::function<Result<bool>(const CommitId&, const Commit&)>& visit) {
    Walker walker(*this);
    for (const CommitId& id : from) CORAL_CHECK(walker.start(id));
    while (true) {
        CommitId id;
        std::shared_ptr<const Commit> commit;
        CORAL_TRY(bool more, walker.next(id, commit));
        if (!more) return {};
        CORAL_TRY(bool go_on, visit(id, *commit));
        if (!go_on) return {};
    }
}

Result<std::vector<CommitId>> Repository::recent_commits(std::size_t limit) {
    std::vector<CommitId> found;
    if (limit == 0) return found;
    CORAL_TRY(std::vector<Ref> all, refs(""));
    CORAL_TRY(Head head, this->head());
    Walker walker(*this);
    // One ref that leads nowhere must not hide the others; fsck tells of it.
    auto start = [&](const Result<CommitId>& id) {
        Status done = id ? walker.start(*id) : Status(id.error());
        if (!done) log_warn("{}", done.error().message);
    };
    for (const Ref& ref : all) {
        if (!ref.annotated) {
            start(CommitId::from(ref.target));
            continue;
        }
        auto tag = this->tag(TagId::from(ref.target));
        start(tag ? Result<CommitId>((*tag)->target) : Result<CommitId>(tag.error()));
    }
    if (head.branch.empty() && head.commit) start(*head.commit);
    while (found.size() < limit) {
        CommitId id;
        std::shared_ptr<const Commit> commit;
        CORAL_TRY(bool more, walker.next(id, commit));
        if (!more) break;
        found.push_back(id);
    }
    return found;
}

}  // namespace coral::repo
