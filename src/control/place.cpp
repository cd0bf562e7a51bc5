// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "coral/control/protocol.hpp"
#include "coral/repo/objects.hpp"

namespace coral::control {

namespace {

struct Place {
    std::string folder, name;
};

// Paths come from a socket: every part must be a name that a tree could hold.
Result<Place> split(const std::string& path) {
    Place place;
    std::size_t begin = 0;
    while (true) {
        std::size_t end = path.find('/', begin);
        std::string_view part = std::string_view(path).substr(begin, end == std::string::npos ? end : end - begin);
        if (!repo::valid_name(part))
            return make_error(Errc::kInvalid, fmt::format("'{}': not a path in a branch", path));
        if (end == std::string::npos) {
            place.folder = begin ? path.substr(0, begin - 1) : "";
            place.name = part;
            return place;
        }
        begin = end + 1;
    }
}

Result<repo::InodePtr> make_folders(repo::Worktree& worktree, const std::string& path, std::uint32_t uid,
                                    std::uint32_t gid) {
    repo::InodePtr dir = worktree.root();
    std::size_t begin = 0;
    while (begin < path.size()) {
        std::size_t end = std::min(path.find('/', begin), path.size());
        std::string_view name = std::string_view(path).substr(begin, end - begin);
        auto next = worktree.lookup(dir, name);
        if (!next && next.error().code == Errc::kNotFound) {
            next = worktree.make_directory(dir, name, 0755, uid, gid);
            if (next) worktree.announce(dir, std::string(name), 0);
        }
        // Between the two somebody may have made it through the mount.
        if (!next && next.error().code == Errc::kExists) next = worktree.lookup(dir, name);
        if (!next) return std::move(next).error();
        if (worktree.attributes(*next).type != FileType::kDirectory)
            return make_error(Errc::kNotDirectory, fmt::format("{}: not a directory", path.substr(0, end)));
        dir = *next;
        begin = end + 1;
    }
    return dir;
}

Status place_link(repo::Worktree& worktree, const Place& place, const PlaceRequest& request, std::uint32_t uid,
                  std::uint32_t gid) {
    CORAL_TRY(auto dir, make_folders(worktree, place.folder, uid, gid));
    auto old = worktree.lookup(dir, place.name);
    if (old && worktree.attributes(*old).type == FileType::kSymlink && worktree.link_target(*old) == request.link)
        return {};
    if (!old && old.error().code == Errc::kNotFound) {
        CORAL_TRY(auto made, worktree.make_symlink(dir, place.name, request.link, uid, gid));
        (void)made;
        worktree.announce(dir, place.name, 0);
        return {};
    }
    // Made beside and renamed over, so that the name is never missing.
    std::string temporary = fmt::format(".coral-{}", Uuid::random().text());
    CORAL_TRY(auto made, worktree.make_symlink(dir, temporary, request.link, uid, gid));
    auto renamed = worktree.rename(dir, temporary, dir, place.name, repo::RenameMode::kReplace);
    if (!renamed) {
        (void)worktree.unlink(dir, temporary);
        return std::move(renamed).error();
    }
    worktree.announce(dir, place.name, *renamed ? worktree.attributes(*renamed).ino : 0);
    return {};
}

Status place_directory(repo::Worktree& worktree, const Place& place, const PlaceRequest& request, std::uint32_t uid,
                       std::uint32_t gid) {
    CORAL_TRY(auto parent, make_folders(worktree, place.folder, uid, gid));
    CORAL_TRY(auto dir, make_folders(worktree, request.path, uid, gid));
    repo::SetAttributes set;
    set.mode = request.mode;
    if (request.mtime_ns) set.mtime_ns = request.mtime_ns;
    CORAL_CHECK(worktree.set_attributes(dir, set));
    worktree.announce(parent, place.name, 0);  // the name leads to its new attributes
    return {};
}

}  // namespace

Result<std::uint64_t> place_all(repo::Worktree& worktree, const std::vector<PlaceRequest>& requests) {
    // Files belong to whom the branch belongs to, whoever runs the command.
    repo::Attributes root = worktree.attributes(worktree.root());
    std::uint64_t placed = 0;
    for (const PlaceRequest& request : requests) {
        CORAL_TRY(Place place, split(request.path));
        if (request.directory) {
            CORAL_CHECK(place_directory(worktree, place, request, root.uid, root.gid));
        } else if (!request.link.empty()) {
            CORAL_CHECK(place_link(worktree, place, request, root.uid, root.gid));
        } else {
            auto file = worktree.place_file(request.path, request.file, request.size, request.mode, request.mtime_ns,
                                            root.uid, root.gid);
            if (!file) return std::move(file).error();
        }
        ++placed;
    }
    return placed;
}

}  // namespace coral::control
