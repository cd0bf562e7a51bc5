// SPDX-License-Identifier: Apache-2.0
#include "repo/base_index.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "coral/base/log.hpp"

namespace coral::repo {
namespace {

constexpr std::int64_t kVersion = 2;
constexpr std::size_t kLooked = 8;  // candidates whose whole sketch is read
// Heads farther apart are no relatives: unrelated weights differ by some 14 of 16 bits an element.
constexpr unsigned kFarthest = 11 * Sketch::kHead;
constexpr double kAttach = 0.9;       // of SOLO, for what no name suggests
constexpr double kBetter = 0.97;      // of the estimate of what the name suggests
constexpr double kDepthCosts = 0.01;  // of the bits, for each base below a base: reading it takes longer

std::uint64_t cost_of(const Sketch& sketch) {
    return sizeof(Sketch) + sketch.samples.size() + kLruOverhead;
}

}  // namespace

BaseIndex::~BaseIndex() {
    flush();
}

// ---- searching

std::vector<BaseIndex::Choice> BaseIndex::nearest(const Sketch& sketch, std::size_t limit, const Allowed& allowed) {
    struct Near {
        unsigned distance;
        std::size_t index;
        SegmentId id;
        std::uint8_t depth;
    };
    std::vector<Near> near;
    unsigned too_far = kFarthest + 1;
    {
        std::shared_lock lock(groups_mutex_);
        auto found = groups_.find(sketch.hint.pack());
        if (found == groups_.end()) return {};
        const Group& group = found->second;
        // Nearest first, among equals the newest. A short list in order beats a heap. Nothing can be estimated between
        // segments of different lengths: those must not take the places of others.
        for (std::size_t i = group.heads.size(); i-- > 0;) {
            if (group.lengths[i] != sketch.length) continue;
            unsigned distance = head_distance(sketch.head, group.heads[i]);
            if (distance >= too_far || group.depths[i] >= codec::kMaxDepth) continue;
            if (allowed && !allowed(group.ids[i])) continue;
            auto place = std::upper_bound(near.begin(), near.end(), distance,
                                          [](unsigned d, const Near& other) { return d < other.distance; });
            near.insert(place, {distance, i, group.ids[i], group.depths[i]});
            if (near.size() > kLooked) near.pop_back();
            if (near.size() == kLooked) too_far = near.back().distance;
        }
    }
    std::vector<Choice> choices;
    for (const Near& candidate : near) {
        auto base = read(candidate.id);
        if (!base) continue;
        double bits = delta_estimate(sketch, *base);
        if (bits == std::numeric_limits<double>::infinity()) continue;
        choices.push_back({candidate.id, bits * (1 + kDepthCosts * candidate.depth)});
    }
    std::stable_sort(choices.begin(), choices.end(), [](const Choice& a, const Choice& b) { return a.bits < b.bits; });
    if (choices.size() > limit) choices.resize(limit);
    return choices;
}

std::optional<BaseIndex::Choice> BaseIndex::choose(const Sketch& sketch, const std::optional<SegmentId>& named) {
    constexpr double kUnknown = std::numeric_limits<double>::infinity();
    const double alone = solo_estimate(sketch);
    double by_name = kUnknown;
    if (named) {
        auto base = read(*named);
        // Unknown, or of another length (a tensor that has grown): the encoder will see.
        if (base) by_name = delta_estimate(sketch, *base);
        if (by_name == kUnknown) return Choice{*named, kUnknown};
    }
    std::vector<Choice> best = nearest(sketch, 1);
    if (!best.empty() && best.front().bits < std::min(kAttach * alone, kBetter * by_name)) return best.front();
    if (by_name < alone) return Choice{*named, by_name};
    return std::nullopt;
}

std::shared_ptr<const Sketch> BaseIndex::read(const SegmentId& id) {
    if (auto known = cache_.get(id)) return known;
    auto sketch = std::make_shared<Sketch>();
    {
        std::lock_guard lock(database_mutex_);
        Database* db = database();
        if (!db) return nullptr;
        Statement row = db->prepare("SELECT hint, length, head, samples FROM sketch WHERE id=?");
        row.bind(id);
        auto there = row.step();
        if (!there) {
            give_up(there.error());
            return nullptr;
        }
        if (!*there) return nullptr;
        sketch->hint = codec::Hint::unpack(static_cast<std::uint16_t>(row.integer(0)));
        sketch->length = static_cast<std::uint32_t>(row.integer(1));
        if (row.blob(2).size() != sizeof(sketch->head)) return nullptr;
        std::memcpy(sketch->head.data(), row.blob(2).data(), sizeof(sketch->head));
        Bytes samples = row.blob(3);
        if (samples.size() % sketch->hint.width != 0) return nullptr;
        sketch->samples.assign(samples.begin(), samples.end());
    }
    cache_.put(id, sketch, cost_of(*sketch));
    return sketch;
}

// ---- filling

void BaseIndex::add(const SegmentId& id, const Sketch& sketch, const std::vector<std::uint64_t>& anchors,
                    std::uint8_t depth) {
    if (read_only_) return;
    std::vector<Added> full;
    {
        std::lock_guard lock(added_mutex_);
        added_.push_back({id, sketch, anchors, depth});
        if (added_.size() < limits_.waiting) return;
        full.swap(added_);
    }
    // Written, but not taken in: a file's own tensors are no bases of each other, however many it has.
    std::lock_guard lock(database_mutex_);
    Database* db = database();
    if (!db) return;
    more_ = true;
    if (Status done = write(*db, full); !done) give_up(done.error());
}

std::optional<AnchorTable::Place> BaseIndex::find_anchor(Bytes bytes, std::size_t from, std::size_t step) const {
    std::shared_lock lock(groups_mutex_);
    return anchors_.find(bytes, from, step);
}

bool BaseIndex::has_anchors() const {
    std::shared_lock lock(groups_mutex_);
    return !anchors_.empty();
}

void BaseIndex::refresh() {
    std::lock_guard lock(database_mutex_);
    if (Database* db = database()) {
        if (Status done = take_in(*db); !done) give_up(done.error());
    }
}

void BaseIndex::flush() {
    std::vector<Added> added;
    {
        std::lock_guard lock(added_mutex_);
        added.swap(added_);
    }
    std::lock_guard lock(database_mutex_);
    if (added.empty() && !more_) return;
    Database* db = database();
    if (!db) return;
    Status done = write(*db, added);
    if (done) done = take_in(*db);
    if (!done) give_up(done.error());
}

void BaseIndex::keep_only(const std::function<bool(const SegmentId&)>& is_there) {
    std::vector<std::pair<std::int64_t, SegmentId>> rows;
    {
        std::lock_guard lock(database_mutex_);
        Database* db = read_only_ ? nullptr : database();
        if (!db) return;
        Statement all = db->prepare("SELECT no, id FROM sketch");
        while (true) {
            auto more = all.step();
            if (!more) return give_up(more.error());
            if (!*more) break;
            rows.emplace_back(all.integer(0), all.id<SegmentId>(1));
        }
    }
    std::erase_if(rows, [&](const auto& row) { return is_there(row.second); });
    if (rows.empty()) return;
    std::lock_guard lock(database_mutex_);
    Database* db = database();
    if (!db) return;
    if (Status done = forget(*db, rows); !done) give_up(done.error());
}

Status BaseIndex::forget(Database& db, const std::vector<std::pair<std::int64_t, SegmentId>>& rows) {
    CORAL_TRY(Transaction transaction, Transaction::begin(db));
    for (const auto& [no, id] : rows) CORAL_CHECK(db.prepare("DELETE FROM sketch WHERE no=?").bind(no).run());
    CORAL_CHECK(transaction.commit());
    cache_.clear();
    {
        std::unique_lock groups(groups_mutex_);
        groups_.clear();
        heads_ = 0;
        anchors_.clear();
    }
    taken_in_ = 0;
    return take_in(db);
}

Status BaseIndex::write(Database& db, const std::vector<Added>& added) {
    CORAL_TRY(Transaction transaction, Transaction::begin(db));
    for (const Added& one : added) {
        Statement row = db.prepare(
            "INSERT OR IGNORE INTO sketch(id, hint, length, depth, head, samples, anchors) VALUES(?, ?, ?, ?, ?, ?, "
            "?)");
        row.bind(one.id).bind(std::uint32_t{one.sketch.hint.pack()}).bind(one.sketch.length);
        row.bind(std::uint32_t{one.depth}).bind(std::as_bytes(std::span(one.sketch.head))).bind(one.sketch.samples);
        row.bind(std::as_bytes(std::span(one.anchors)));
        CORAL_CHECK(row.run());
    }
    return transaction.commit();
}

// Rows that are not in groups_ yet: ours and those of other processes.
Status BaseIndex::take_in(Database& db) {
    more_ = false;
    std::int64_t newest = 0;
    {
        Statement row = db.prepare("SELECT max(no) FROM sketch");
        CORAL_TRY(bool there, row.step());
        if (there && !row.is_null(0)) newest = row.integer(0);
    }
    if (newest == taken_in_) return {};
    std::int64_t from = std::max(taken_in_, newest - static_cast<std::int64_t>(limits_.heads));
    Statement rows =
        db.prepare("SELECT no, id, hint, depth, head, length, anchors FROM sketch WHERE no > ? ORDER BY no");
    rows.bind(from);
    std::unique_lock lock(groups_mutex_);
    while (true) {
        CORAL_TRY(bool more, rows.step());
        if (!more) return {};
        taken_in_ = rows.integer(0);
        if (heads_ >= limits_.heads) drop_oldest();
        std::vector<std::uint64_t> anchors(rows.blob(6).size() / sizeof(std::uint64_t));
        if (!anchors.empty()) std::memcpy(anchors.data(), rows.blob(6).data(), anchors.size() * sizeof anchors[0]);
        auto hint = codec::Hint::unpack(static_cast<std::uint16_t>(rows.integer(2)));
        anchors_.add({rows.id<SegmentId>(1), static_cast<std::uint32_t>(rows.integer(5)), hint}, anchors);
        Group& group = groups_[static_cast<std::uint16_t>(rows.integer(2))];
        Bytes head = rows.blob(4);
        if (head.size() != sizeof(group.heads[0])) continue;
        std::memcpy(group.heads.emplace_back().data(), head.data(), head.size());
        group.lengths.push_back(static_cast<std::uint32_t>(rows.integer(5)));
        group.ids.push_back(rows.id<SegmentId>(1));
        group.depths.push_back(static_cast<std::uint8_t>(rows.integer(3)));
        ++heads_;
    }
}

// A quarter of each group, so that this is rare: nothing is lost of the newest three quarters.
void BaseIndex::drop_oldest() {
    heads_ = 0;
    for (auto group = groups_.begin(); group != groups_.end();) {
        Group& g = group->second;
        const auto gone = static_cast<std::ptrdiff_t>((g.heads.size() + 3) / 4);
        g.heads.erase(g.heads.begin(), g.heads.begin() + gone);
        g.lengths.erase(g.lengths.begin(), g.lengths.begin() + gone);
        g.ids.erase(g.ids.begin(), g.ids.begin() + gone);
        g.depths.erase(g.depths.begin(), g.depths.begin() + gone);
        heads_ += g.heads.size();
        group = g.heads.empty() ? groups_.erase(group) : std::next(group);
    }
}

// ---- the database

Database* BaseIndex::database() {
    if (database_ || failed_) return database_.get();
    Status opened = open_database();
    if (opened) return database_.get();
    if (!read_only_ && (opened.error().code == Errc::kCorrupt || opened.error().code == Errc::kUnsupported)) {
        // A cache: what cannot be read is made anew.
        log_warn("{} is made anew: {}", path_, opened.error().message);
        for (const char* suffix : {"", "-wal", "-shm"}) (void)os_.remove(path_ + suffix);
        opened = open_database();
    }
    if (!opened) give_up(opened.error());
    return database_.get();
}

Status BaseIndex::open_database() {
    DatabaseOptions options;
    options.read_only = read_only_;
    options.create = !read_only_;
    options.busy_timeout_ms = 2000;
    CORAL_TRY(auto db, Database::open(os_, path_, options));
    CORAL_TRY(std::int64_t version, db->user_version());
    if (version == 0 && !read_only_) {
        CORAL_CHECK(
            db->execute("CREATE TABLE IF NOT EXISTS sketch(no INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, "
                        "hint INTEGER NOT NULL, length INTEGER NOT NULL, depth INTEGER NOT NULL, "
                        "head BLOB NOT NULL, samples BLOB NOT NULL, anchors BLOB NOT NULL)"));
        CORAL_CHECK(db->set_user_version(kVersion));
    } else if (version != kVersion) {
        return make_error(Errc::kUnsupported, "bases.db of another version");
    }
    database_ = std::move(db);
    CORAL_CHECK(take_in(*database_));
    return {};
}

// Bytes are stored all the same, only with the bases that names suggest.
void BaseIndex::give_up(const Error& error) {
    if (error.code == Errc::kBusy) return;  // the next file tries again
    if (!failed_ && !read_only_) log_warn("{}: no search for similar tensors: {}", path_, error.message);
    failed_ = true;
    database_.reset();
}

}  // namespace coral::repo
