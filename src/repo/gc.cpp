// SPDX-License-Identifier: Apache-2.0
// Removing what no name leads to: the mark is here, the rest is Store::collect.
#include <fmt/format.h>

#include <charconv>

#include "coral/base/log.hpp"
#include "coral/repo/settings.hpp"
#include "repo/base_index.hpp"
#include "repo/mark.hpp"
#include "repo/pins.hpp"
#include "repo/state.hpp"
#include "repo/whole.hpp"

namespace coral::repo {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kStandardGrace = 24 * 3600 * kSecond;
constexpr std::uint64_t kStandardPercent = 70;

Result<std::unique_ptr<File>> lock_gc(Os& os, const std::string& dir) {
    std::string path = path_join(dir, "run/gc.lock");
    auto file = os.open(path, OpenMode::kOpenOrCreate);
    if (!file && file.error().code == Errc::kNotFound) {
        (void)os.make_dir(path_parent(path));
        file = os.open(path, OpenMode::kOpenOrCreate);
    }
    if (!file) return std::move(file).error();
    CORAL_TRY(bool locked, (*file)->try_lock(true));
    if (locked) return file;
    return make_error(Errc::kBusy,
                      fmt::format("{}: another `coral gc` or `coral repack` is at work; wait for it to end", path));
}

// Entries of the reflog that lead to what is about to go; those that lead to something stay, however old.
Result<std::uint64_t> expire_reflog(Database& db, const store::LiveSet& live, std::int64_t before) {
    std::vector<std::int64_t> expired;
    {
        Statement st = db.prepare("SELECT seq, old_target, new_target FROM reflog WHERE time_ns < ?");
        st.bind(before);
        while (true) {
            CORAL_TRY(bool row, st.step());
            if (!row) break;
            auto dead = [&](int column) {
                if (st.is_null(column)) return false;
                auto id = st.id<AnyId>(column);
                return !live.contains(store::Kind::kCommit, id) && !live.contains(store::Kind::kTag, id);
            };
            if (dead(1) || dead(2)) expired.push_back(st.integer(0));
        }
    }
    for (std::int64_t seq : expired) CORAL_CHECK(db.prepare("DELETE FROM reflog WHERE seq = ?").bind(seq).run());
    return expired.size();
}

}  // namespace

std::optional<std::int64_t> parse_duration(std::string_view text) {
    std::int64_t number = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || number < 0) return std::nullopt;
    std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
    std::int64_t seconds = unit == "s" ? 1 : unit == "m" ? 60 : unit == "h" ? 3600 : unit == "d" ? 86400 : 0;
    if (unit == "w") seconds = 7 * 86400;
    if (seconds == 0 || number > INT64_MAX / 2 / kSecond / seconds) return std::nullopt;
    return number * seconds * kSecond;
}

Result<std::int64_t> Repository::gc_grace() {
    CORAL_TRY(auto text, config("gc.grace"));
    if (!text) return kStandardGrace;
    if (auto grace = parse_duration(*text)) return *grace;
    return make_error(Errc::kInvalid, fmt::format("{}: gc.grace = '{}' is not a number with s, m, h, d or w behind it",
                                                  repo_config_path(dir_), *text));
}

// For as long as the result lives, no other process removes or replaces packs.
Result<std::unique_ptr<File>> Repository::begin_removal(bool dry_run) {
    if (dry_run) return std::unique_ptr<File>();
    if (read_only_) return make_error(Errc::kReadOnly, fmt::format("{}: the repository is open read-only", dir_));
    return lock_gc(os_, dir_);
}

Result<GcReport> Repository::gc(const GcOptions& options) {
    CORAL_TRY(std::unique_ptr<File> lock, begin_removal(options.dry_run));
    return collect(options, false);
}

Result<GcReport> Repository::collect(const GcOptions& options, bool replace) {
    store::CollectOptions collect;
    collect.replace = replace;
    collect.live_percent = kStandardPercent;
    if (auto text = config("gc.live_percent"); text && *text) {
        auto [end, error] = std::from_chars((*text)->data(), (*text)->data() + (*text)->size(), collect.live_percent);
        if (error != std::errc() || collect.live_percent > 100)
            return make_error(Errc::kInvalid, fmt::format("{}: gc.live_percent = '{}' is not a number up to 100",
                                                          repo_config_path(dir_), **text));
    }
    GcReport report;
    store::LiveSet live;
    Marker marker(*this, live, options.prune_before, options.cancelled);
    collect.mark = [&](store::LiveSet&) -> Status {
        if (options.step) options.step("marking");
        CORAL_CHECK(marker.run());
        report.live_objects = live.size();
        if (options.step) options.step("copying");
        return {};
    };
    collect.keep_written_after = options.prune_before;
    collect.dry_run = options.dry_run;
    collect.progress = options.progress;
    collect.cancelled = options.cancelled;
    collect.patience = options.patience;
    collect.look_again = [&](store::LiveSet&) -> Status {
        CORAL_CHECK(marker.run());
        // FULL: what was read above cannot go back behind this moment any more, with or without a power cut.
        return state_->write_durably([&](Database& db) -> Status {
            CORAL_TRY(std::uint64_t expired, expire_reflog(db, live, options.prune_before));
            report.expired_entries += expired;
            return db
                .prepare(
                    "INSERT INTO meta(key, value) VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value")
                .bind(kRemovedKey)
                .bind(now_ns())
                .run();
        });
    };
    CORAL_TRY(report.packs, store_->collect(live, collect));
    if (report.packs.removed_packs > 0 && !options.dry_run) {
        base_index_->keep_only([&](const SegmentId& id) {
            auto there = store_->contains(store::Kind::kSegment, AnyId::from(id));
            return !there || *there;
        });
    }
    return report;
}

std::shared_ptr<void> Repository::pin(const FileId& id) {
    return pins_->pin(id);
}

}  // namespace coral::repo
