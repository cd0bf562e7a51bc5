// SPDX-License-Identifier: Apache-2.0
// Finds a base for a segment by what it looks like: whatever its name, file, branch or container. Sketches of all
// segments that were stored lie in bases.db, which may vanish at any moment (fewer bases are found until it has filled
// again); the newest of their heads are held in memory.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <vector>

#include "coral/base/lru.hpp"
#include "coral/base/os.hpp"
#include "coral/base/result.hpp"
#include "coral/base/sqlite.hpp"
#include "repo/anchors.hpp"
#include "repo/sketch.hpp"

namespace coral::repo {

// Thread-safe. Several processes may use one bases.db; each sees what the others added when it opens it and now and
// then. No call fails: a base that is not found costs bytes, never a write.
class BaseIndex {
  public:
    // What is held in memory, whatever bases.db has grown to; with the anchors (AnchorTable) at most 100 MB.
    struct Limits {
        std::size_t heads = 200'000;           // 69 bytes each, up to twice that while a vector has room to grow
        std::size_t waiting = 1024;            // rows that were added and are not in bases.db yet: 3 MB
        std::uint64_t cache_bytes = 8u << 20;  // of whole sketches
    };

    BaseIndex(Os& os, std::string path, bool read_only) : BaseIndex(os, std::move(path), read_only, Limits{}) {}
    BaseIndex(Os& os, std::string path, bool read_only, const Limits& limits)
        : os_(os), path_(std::move(path)), read_only_(read_only), limits_(limits), cache_(limits.cache_bytes) {}
    ~BaseIndex();

    struct Choice {
        SegmentId id;
        double bits = 0;  // an element, estimated; infinite: unknown
    };
    // The best base for what `sketch` shows, or nothing when none is expected to cost less than 0.9 of SOLO. `named` is
    // what the name suggests: taken unless another one is clearly better or it is no better than none, and always when
    // there is no sketch of it.
    std::optional<Choice> choose(const Sketch& sketch, const std::optional<SegmentId>& named);
    // Candidates by ascending cost, at most `limit`; only `allowed` ones if that is given.
    using Allowed = std::function<bool(const SegmentId&)>;
    std::vector<Choice> nearest(const Sketch& sketch, std::size_t limit, const Allowed& allowed = {});
    // Of a segment that was stored; nothing when none is known.
    std::shared_ptr<const Sketch> sketch(const SegmentId& id) { return read(id); }

    void add(const SegmentId& id, const Sketch& sketch, const std::vector<std::uint64_t>& anchors, std::uint8_t depth);
    // Where in `bytes`, at or behind `from` in steps of `step`, a stored segment shows itself first.
    std::optional<AnchorTable::Place> find_anchor(Bytes bytes, std::size_t from, std::size_t step) const;
    bool has_anchors() const;
    // Takes in what is in bases.db: called at the beginning of each file, and before the first search.
    void refresh();
    // What was added goes to bases.db; called at the end of each file. Only then it is found, though a long file's rows
    // are written when many wait.
    void flush();
    // Forgets what `is_there` denies: gc has removed it.
    void keep_only(const std::function<bool(const SegmentId&)>& is_there);

  private:
    struct Group {  // of one element type, oldest first
        std::vector<std::array<std::uint16_t, Sketch::kHead>> heads;
        std::vector<std::uint32_t> lengths;  // of the segments
        std::vector<SegmentId> ids;
        std::vector<std::uint8_t> depths;
    };
    struct Added {
        SegmentId id;
        Sketch sketch;
        std::vector<std::uint64_t> anchors;
        std::uint8_t depth = 0;
    };

    // database_mutex_ held
    Database* database();
    Status open_database();
    Status take_in(Database& db);
    Status forget(Database& db, const std::vector<std::pair<std::int64_t, SegmentId>>& rows);
    Status write(Database& db, const std::vector<Added>& added);
    void drop_oldest();  // groups_mutex_ held, too
    void give_up(const Error& error);

    std::shared_ptr<const Sketch> read(const SegmentId& id);

    Os& os_;
    const std::string path_;
    const bool read_only_;
    const Limits limits_;

    std::mutex database_mutex_;  // guards database_, failed_, taken_in_, more_; held across SQLite's own I/O only
    std::unique_ptr<Database> database_;
    bool failed_ = false;  // told once; there is no search then
    std::int64_t taken_in_ = 0;
    bool more_ = false;  // rows of ours in bases.db that are not taken in

    mutable std::shared_mutex groups_mutex_;  // guards groups_, heads_, anchors_; a leaf
    std::map<std::uint16_t, Group> groups_;
    AnchorTable anchors_;
    std::size_t heads_ = 0;
    std::mutex added_mutex_;  // guards added_; a leaf
    std::vector<Added> added_;
    Lru<SegmentId, Sketch> cache_;
};

}  // namespace coral::repo
