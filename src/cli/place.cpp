// SPDX-License-Identifier: Apache-2.0
#include "cli/place.hpp"

#include <fmt/format.h>

#include <vector>

#include "cli/system.hpp"
#include "cli/text.hpp"
#include "coral/base/os.hpp"
#include "coral/repo/repository.hpp"

namespace coral::cli {
namespace {

Result<std::string> attribute(const std::string& dir, const char* name) {
    CORAL_TRY(auto value, get_xattr(dir, name));
    return value.value_or("");
}

// How deep `dir` lies in its branch or commit: upward until the attribute is another one. For mounts that do not tell.
Result<std::string> path_by_climbing(std::string dir, const char* name, const std::string& value) {
    std::string path;
    while (dir != "/") {
        std::string parent = path_parent(dir);
        auto above = attribute(parent, name);
        if (!above || *above != value) return path;
        path = path.empty() ? path_name(dir) : path_name(dir) + "/" + path;
        dir = parent;
    }
    return path;
}

}  // namespace

Result<Place> find_place(const std::string& dir) {
    Place place;
    CORAL_TRY(place.directory, absolute_path(dir));
    CORAL_TRY(std::string repository, attribute(place.directory, "user.coral.repository"));
    if (repository.empty()) {
        auto found = repo::Repository::discover(real_os(), place.directory);
        // There is nothing to say "no" about: git calls this fatal.
        if (!found) return make_error(Errc::kInvalid, found.error().message);
        place.repository = *found;
        return place;
    }
    place.mounted = true;
    place.repository = repository;
    CORAL_TRY(place.branch, attribute(place.directory, "user.coral.branch"));
    if (place.branch.empty()) {
        CORAL_TRY(place.commit, attribute(place.directory, "user.coral.commit"));
    }
    if (place.branch.empty() && place.commit.empty()) return place;
    CORAL_TRY(auto path, get_xattr(place.directory, "user.coral.path"));
    if (path) {
        CORAL_TRY(place.path, normal_path(*path));
        return place;
    }
    bool branch = !place.branch.empty();
    CORAL_TRY(place.path, path_by_climbing(place.directory, branch ? "user.coral.branch" : "user.coral.commit",
                                           branch ? place.branch : place.commit));
    return place;
}

Result<std::string> normal_path(const std::string& path) {
    std::vector<std::string> parts;
    for (std::size_t at = 0; at < path.size();) {
        std::size_t end = std::min(path.find('/', at), path.size());
        std::string part = path.substr(at, end - at);
        at = end + 1;
        if (part.empty() || part == ".") continue;
        if (part != "..") {
            parts.push_back(std::move(part));
            continue;
        }
        if (parts.empty())
            return make_error(Errc::kInvalid, fmt::format("{}: leads out of the branch", quote_name(path)));
        parts.pop_back();
    }
    return fmt::format("{}", fmt::join(parts, "/"));
}

Result<std::string> path_in_branch(const Place& place, const std::string& operand) {
    if (operand.empty()) return make_error(Errc::kInvalid, "an empty path; '.' is everything from here");
    if (operand.front() != '/') return normal_path(place.path.empty() ? operand : place.path + "/" + operand);
    // Absolute: only inside a mount, where it is known which directory is the top of the branch.
    std::string top = place.directory;
    if (!place.path.empty() && top.ends_with("/" + place.path)) top.resize(top.size() - place.path.size() - 1);
    bool inside = !place.branch.empty() && (operand == top || operand.starts_with(top + "/"));
    if (!inside) {
        return make_error(Errc::kInvalid,
                          fmt::format("{}: lies outside the branch; give a path from its top, or go into "
                                      "its directory in the mount",
                                      quote_name(operand)));
    }
    return normal_path(operand.substr(top.size()));
}

}  // namespace coral::cli
