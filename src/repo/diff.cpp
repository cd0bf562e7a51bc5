// SPDX-License-Identifier: Apache-2.0
// Differences of two trees. What is compared are the leaves: files, symlinks and empty directories; of directories that
// are in both also mode and attributes. A name that turns from a file into a directory is one deletion and the
// additions below it.
#include "coral/repo/diff.hpp"

#include <algorithm>
#include <utility>

namespace coral::repo {
namespace {

// One name that differs. A null entry: not there on that side. `below`: the entries are directories (or nothing) and
// what is in them is to be compared; else the change at this very path.
struct Event {
    std::string key;  // sorts by path: the name, with '/' when it is about what is below
    const TreeEntry* a = nullptr;
    const TreeEntry* b = nullptr;
    bool below = false;
};

struct Frame {
    std::string prefix;                // "" or "a/b/"
    std::shared_ptr<const Tree> a, b;  // keep the entries alive; null: empty
    std::vector<Event> events;         // sorted by key
    std::size_t next = 0;
};

bool is_directory(const TreeEntry* e) {
    return e && e->type == EntryType::kDirectory;
}

bool same_directory(const TreeEntry& a, const TreeEntry& b) {
    return a.mode == b.mode && a.xattrs == b.xattrs;
}

Change leaf_change(const std::string& path, const TreeEntry* a, const TreeEntry* b) {
    Change c;
    c.path = path;
    c.directory = is_directory(a) || is_directory(b);
    if (a) {
        c.old_size = a->size;
        c.old_content = a->content;
    }
    if (b) {
        c.new_size = b->size;
        c.new_content = b->content;
    }
    if (!a)
        c.kind = ChangeKind::kAdded;
    else if (!b)
        c.kind = ChangeKind::kDeleted;
    else if (a->type != b->type)
        c.kind = ChangeKind::kTypeChanged;
    else if (!c.directory && a->content != b->content)
        c.kind = ChangeKind::kModified;
    else
        c.kind = ChangeKind::kModeChanged;  // or extended attributes
    return c;
}

class Differ {
  public:
    Differ(Repository& repo, const std::function<Status(const Change&)>& visit) : repo_(repo), visit_(visit) {}

    Status run(const TreeId& a, const TreeId& b, std::string prefix) {
        CORAL_CHECK(enter(a, b, std::move(prefix)));
        while (!stack_.empty()) {
            Frame& frame = stack_.back();
            if (frame.next == frame.events.size()) {
                stack_.pop_back();
                continue;
            }
            Event event = std::move(frame.events[frame.next++]);
            std::string path = frame.prefix + event.key;
            if (!event.below) {
                CORAL_CHECK(visit_(leaf_change(path, event.a, event.b)));
                continue;
            }
            // `frame` is no longer valid after this; the trees that the entries lie in are.
            CORAL_CHECK(enter(event.a ? TreeId::from(event.a->content) : TreeId{},
                              event.b ? TreeId::from(event.b->content) : TreeId{}, std::move(path)));
        }
        return {};
    }

  private:
    Result<std::shared_ptr<const Tree>> load(const TreeId& id) {
        if (id.is_zero()) return std::shared_ptr<const Tree>();
        return repo_.tree(id);
    }

    Result<bool> is_empty(const TreeEntry* directory) {
        if (!directory) return false;
        CORAL_TRY(auto tree, repo_.tree(TreeId::from(directory->content)));
        return tree->entries.empty();
    }

    // Both directories, or nothing on one side; their contents differ. An empty directory is a leaf of its own.
    Status add_directories(std::vector<Event>& events, const TreeEntry* a, const TreeEntry* b) {
        const std::string& name = a ? a->name : b->name;
        CORAL_TRY(bool was_empty, is_empty(a));
        CORAL_TRY(bool now_empty, is_empty(b));
        if (was_empty) events.push_back({name, a, nullptr, false});
        if (now_empty) events.push_back({name, nullptr, b, false});
        events.push_back({name + "/", a, b, true});
        return {};
    }

    Status add_events(std::vector<Event>& events, const TreeEntry* a, const TreeEntry* b) {
        if (a && b && a->same_content(*b)) return {};
        if (is_directory(a) && is_directory(b)) {
            if (!same_directory(*a, *b)) events.push_back({a->name, a, b, false});
            return a->content == b->content ? Status() : add_directories(events, a, b);
        }
        // A file and a directory of one name have nothing to do with each other.
        const TreeEntry* dir_a = is_directory(a) ? std::exchange(a, nullptr) : nullptr;
        const TreeEntry* dir_b = is_directory(b) ? std::exchange(b, nullptr) : nullptr;
        if (dir_a) CORAL_CHECK(add_directories(events, dir_a, nullptr));
        if (a || b) events.push_back({a ? a->name : b->name, a, b, false});
        if (dir_b) CORAL_CHECK(add_directories(events, nullptr, dir_b));
        return {};
    }

    Result<std::vector<Event>> compare(const Tree* a, const Tree* b) {
        static const Tree kEmpty;
        const auto& left = (a ? a : &kEmpty)->entries;
        const auto& right = (b ? b : &kEmpty)->entries;
        std::vector<Event> events;
        std::size_t i = 0, j = 0;
        while (i < left.size() || j < right.size()) {
            int order = i == left.size() ? 1 : j == right.size() ? -1 : left[i].name.compare(right[j].name);
            CORAL_CHECK(add_events(events, order <= 0 ? &left[i] : nullptr, order >= 0 ? &right[j] : nullptr));
            if (order <= 0) ++i;
            if (order >= 0) ++j;
        }
        // "a.txt" comes between "a" and "a/b": only names that begin other names are out of place. Stable: what is said
        // of one path keeps its order (deleted, then added).
        std::stable_sort(events.begin(), events.end(), [](const Event& x, const Event& y) { return x.key < y.key; });
        return events;
    }

    Status enter(const TreeId& a, const TreeId& b, std::string prefix) {
        if (a == b) return {};
        Frame frame;
        frame.prefix = std::move(prefix);
        CORAL_TRY(frame.a, load(a));
        CORAL_TRY(frame.b, load(b));
        CORAL_TRY(frame.events, compare(frame.a.get(), frame.b.get()));
        stack_.push_back(std::move(frame));
        return {};
    }

    Repository& repo_;
    const std::function<Status(const Change&)>& visit_;
    std::vector<Frame> stack_;
};

}  // namespace

char change_letter(ChangeKind kind) {
    switch (kind) {
        case ChangeKind::kAdded:
            return 'A';
        case ChangeKind::kModified:
            return 'M';
        case ChangeKind::kDeleted:
            return 'D';
        case ChangeKind::kTypeChanged:
            return 'T';
        case ChangeKind::kModeChanged:
            return 'm';
    }
    return '?';
}

Status diff_trees(Repository& repo, const TreeId& a, const TreeId& b, const std::function<Status(const Change&)>& visit,
                  const std::string& prefix) {
    std::string start = prefix;
    if (!start.empty() && start.back() != '/') start += '/';
    return Differ(repo, visit).run(a, b, std::move(start));
}

}  // namespace coral::repo
