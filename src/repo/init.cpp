// SPDX-License-Identifier: Apache-2.0
// Making a repository. The order is what matters: marker, everything else (synced), FORMAT, marker gone.
#include "repo/init.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "coral/base/bytes.hpp"
#include "coral/repo/repository.hpp"
#include "repo/format_file.hpp"
#include "repo/names.hpp"
#include "repo/state.hpp"

namespace coral::repo {
namespace {

constexpr std::string_view kDirs[] = {"packs", "staging", "cache", "run"};

constexpr std::string_view kOptionsText =
    R"(# Options of this repository, over those in ~/.config/coral/config.toml. `coral config` reads and writes this file.
# Everything is optional; what is commented out shows the default.

# [user]
# name = "Your Name"
# email = "you@example.org"

# [store]
# cache_mib = 512        # memory for decoded data
# pack_mib = 1024        # a pack is sealed when it is about this large
# max_depth = 7          # of bases below a tensor, 0 to 7: deeper is smaller, and slower to read cold (docs/benchmarks.md)
)";

// Makes `dir` and what is missing above it; each new name is synced in the directory that holds it.
Status make_parents(Os& os, const std::string& dir) {
    std::vector<std::string> missing;
    for (std::string at = dir; at != "/" && at != "." && !at.empty(); at = path_parent(at)) {
        auto found = os.stat(at);
        if (found) {
            if (found->type == FileType::kDirectory) break;
            return make_error(Errc::kNotDirectory, fmt::format("{}: is not a directory", at));
        }
        if (found.error().code != Errc::kNotFound) return std::move(found).error();
        missing.push_back(at);
    }
    for (; !missing.empty(); missing.pop_back()) {
        auto made = os.make_dir(missing.back(), 0755);
        if (!made && made.error().code != Errc::kExists) return made;
        if (Status synced = os.sync_dir(path_parent(missing.back())); !synced) {
            (void)os.remove_dir(missing.back());  // so that the next attempt makes and syncs it again
            return synced;
        }
    }
    return {};
}

Error already(const std::string& dir) {
    return make_error(Errc::kExists, fmt::format("{}: already is a CoralFS repository", dir));
}

bool ours(std::string_view name) {
    for (std::string_view dir : kDirs) {
        if (name == dir) return true;
    }
    for (std::string_view file : {"coral.toml", "state.db", "index.db", "FORMAT.tmp-"}) {
        if (name.starts_with(file)) return true;
    }
    return name == "lock" || name == kInitMarker;
}

// Nothing in the way: the directory is empty, or holds only what an interrupted init left (then `half_made`).
Status check_empty(Os& os, const std::string& dir, bool& half_made) {
    CORAL_TRY(std::vector<std::string> names, os.list_dir(dir));
    half_made = std::find(names.begin(), names.end(), kInitMarker) != names.end();
    for (const std::string& name : names) {
        if (half_made && ours(name)) continue;
        return make_error(
            Errc::kNotEmpty,
            fmt::format("{}: is not empty (it holds '{}'); choose an empty or a new directory", dir, name));
    }
    return {};
}

Status clear_remains(Os& os, const std::string& dir) {
    CORAL_TRY(std::vector<std::string> names, os.list_dir(dir));
    for (const std::string& name : names) {
        if (name == kInitMarker) continue;
        std::string path = path_join(dir, name);
        CORAL_TRY(FileStat st, os.lstat(path));
        if (st.type != FileType::kDirectory) {
            CORAL_CHECK(os.remove(path));
            continue;
        }
        CORAL_TRY(std::vector<std::string> inner, os.list_dir(path));
        for (const std::string& file : inner) CORAL_CHECK(os.remove(path_join(path, file)));
        CORAL_CHECK(os.remove_dir(path));
    }
    return {};
}

Status fill_state(Os& os, const std::string& dir, const std::string& branch) {
    CORAL_TRY(auto state, State::open(os, path_join(dir, "state.db"), false, true));
    Owner owner = process_owner();
    return state->write_durably([&](Database& db) -> Status {
        CORAL_CHECK(
            db.prepare("INSERT INTO meta(key, value) VALUES('head', ?), ('ref_seq', 0)").bind("heads/" + branch).run());
        return insert_branch(db, NewBranch{branch, Uuid::random(), std::nullopt, std::nullopt}, owner);
    });
}

Status make_all(Os& os, const std::string& dir, const Uuid& uuid, const store::StoreOptions& options,
                const std::string& branch) {
    for (std::string_view name : kDirs) {
        auto made = os.make_dir(path_join(dir, name), 0700);
        if (!made && made.error().code != Errc::kExists) return made;
    }
    CORAL_CHECK(write_file_atomic(os, path_join(dir, "coral.toml"), as_bytes(kOptionsText)));
    CORAL_CHECK(store::Store::create(os, dir, uuid, options));  // and closed again
    CORAL_CHECK(fill_state(os, dir, branch));
    CORAL_CHECK(os.sync_dir(path_join(dir, "packs")));
    CORAL_CHECK(os.sync_dir(dir));
    FormatFile format;
    format.repo = uuid;
    return write_file_atomic(os, path_join(dir, kFormatName), as_bytes(format_text(format)));
}

}  // namespace

void forget_init(Os& os, const std::string& dir) {
    std::string marker = path_join(dir, kInitMarker);
    if (!os.exists(marker)) return;
    // Held: the init that wrote FORMAT just now is still there and removes it itself.
    auto file = os.open(marker, OpenMode::kReadWrite);
    if (!file) return;
    auto locked = (*file)->try_lock(true);
    if (locked && *locked) (void)os.remove(marker);
}

Result<std::unique_ptr<Repository>> Repository::init(Os& os, const std::string& dir, const RepositoryOptions& options,
                                                     const std::string& branch) {
    CORAL_TRY(std::string absolute, absolute_path(dir));
    if (!valid_branch_name(branch))
        return make_error(Errc::kInvalid, fmt::format("'{}': not a valid branch name", branch));
    if (options.read_only) return make_error(Errc::kInvalid, fmt::format("{}: cannot be made read-only", absolute));
    CORAL_CHECK(make_parents(os, absolute));
    std::string format_path = path_join(absolute, kFormatName), marker = path_join(absolute, kInitMarker);
    if (os.exists(format_path)) return already(absolute);
    bool half_made = false;
    CORAL_CHECK(check_empty(os, absolute, half_made));
    {
        CORAL_TRY(auto file, os.open(marker, OpenMode::kOpenOrCreate));
        CORAL_TRY(bool locked, file->try_lock(true));
        if (!locked) {
            return make_error(Errc::kBusy,
                              fmt::format("{}: another `coral init` is making this repository now", absolute));
        }
        // Whoever held the marker before us may have finished while we came.
        if (os.exists(format_path)) {
            (void)os.remove(marker);
            return already(absolute);
        }
        CORAL_CHECK(os.sync_dir(absolute));
        if (half_made) CORAL_CHECK(clear_remains(os, absolute));
        CORAL_CHECK(make_all(os, absolute, Uuid::random(), options.store, branch));
        CORAL_CHECK(os.remove(marker));
    }
    return open(os, absolute, options);
}

}  // namespace coral::repo
