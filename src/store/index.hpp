// SPDX-License-Identifier: Apache-2.0
// Where every object lies: a SQLite database that may vanish at any moment, in front of it the rows that are not in it
// yet.
//
// The one rule: a row enters index.db only after an fdatasync of its pack. So index.db never knows an object that a
// power cut can take, and an object that is found there may be relied on without looking at the pack.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <vector>

#include "coral/base/sqlite.hpp"
#include "store/pack_file.hpp"

namespace coral::store {

struct Row {
    AnyId id;
    Kind kind{};
    std::uint16_t flags = 0;
    std::uint32_t rank = 0;
    Uuid pack;
    std::int64_t created_ns = 0;  // of the pack
    std::uint64_t offset = 0, stored = 0, raw = 0;
    std::int32_t slot = -1;  // of a GROUP record
    bool foreign = false;    // appended by another process and perhaps not on stable storage yet
};

enum class PackPhase : std::uint8_t {
    kOpen = 0,    // may grow
    kSealed = 1,  // ends in INDEX and footer
    kClosed = 2,  // a torn tail, or an INDEX without a footer: read, never appended to
};

// What is known of one pack. Of its records, [header, committed_to) are in index.db and [committed_to, scanned_to)
// pending.
struct PackState {
    Uuid uuid;
    std::int64_t created_ns = 0;
    std::uint64_t ref_seq = 0;  // highest of the header and of all REF records
    PackPhase phase = PackPhase::kOpen;
    bool own = false;  // this process appends to it
    std::uint64_t committed_to = kFileHeaderSize;
    std::uint64_t synced_to = kFileHeaderSize;
    std::uint64_t scanned_to = kFileHeaderSize;
    std::uint64_t next_seq = 1;
    std::uint64_t tail_offset = 0, tail_sum = 0;  // the last record's place and header sum: tells a file from its clone
    std::uint64_t index_bytes = 0;                // its INDEX payload would be this large
    std::uint64_t failed_size = 0;                // what lies at scanned_to did not verify when the file was this long
    bool changed = false;                         // since it was last written to index.db
};

class Index {
  public:
    using SyncPack = std::function<Status(const Uuid&)>;
    static Result<std::unique_ptr<Index>> open(Os& os, const std::string& path, const Uuid& repo, PackSet& packs,
                                               bool read_only);

    // Rows of an object, the one to take first. Looks for appends of other processes before it gives nothing.
    Result<std::vector<Row>> find(Kind kind, const AnyId& id);
    // As find, and really all of them: find leaves committed ones out when others serve.
    Result<std::vector<Row>> find_all(Kind kind, const AnyId& id);
    Result<std::vector<AnyId>> find_prefix(Kind kind, std::string_view prefix, std::size_t limit);
    Status each(Kind kind, const std::function<Status(const Row&)>& visit);  // committed and pending, any order
    Status totals(StoreStats& stats);

    std::vector<PackState> packs() const;  // by (created, uuid)
    std::optional<PackState> pack(const Uuid& uuid) const;
    std::uint64_t highest_ref_seq() const;

    // How sync() makes one pack durable.
    void set_sync(SyncPack sync_pack) { sync_pack_ = std::move(sync_pack); }

    // For the writer, under its lock.
    void add_pack(const FileHeader& header, bool own);
    void set_own(const Uuid& pack, bool own);
    void set_closed(const Uuid& pack);
    void set_sealed(const Uuid& pack, std::uint64_t size);
    void add_record(const Uuid& pack, const IndexEntry& entry, std::uint64_t seq, std::uint64_t header_sum,
                    std::uint64_t ref_seq);
    // Takes in what lies behind scanned_to. True when the file verifies to its very end and may be appended to.
    Result<bool> catch_up(const Uuid& pack);

    // fdatasync of every pack with records that are not known to be durable, then their rows go to index.db. A failure
    // of the database is no failure: the rows stay pending.
    Status sync();
    // A pack could not be made durable. The kernel forgets a failed write-back once it has told of it: a later
    // fdatasync that succeeds proves nothing. So this store says "durable" never again and appends nothing; opening it
    // anew helps.
    void fail(const Error& error);
    Status failure() const;
    bool should_sync() const { return pending_count_.load(std::memory_order_relaxed) > kMaxPending; }

    // Sees what others did: a replaced index.db, new packs, appended records. True when there was anything.
    Result<bool> refresh();
    // Others may have removed packs (Store::collect): what is known of those that are gone is forgotten, but for rows
    // in index.db, which no longer count. True when there was any.
    Result<bool> forget_gone();
    bool forgot_any() const { return forgot_any_.load(); }  // ever
    // Takes the rows of packs that are gone from index.db, too.
    Status drop_rows(const std::vector<Uuid>& packs);
    // Ids with more than one record.
    Status each_duplicate(const std::function<void(Kind, const AnyId&)>& visit);
    Status rebuild(const std::function<void(std::uint64_t, std::uint64_t)>& progress);

  private:
    static constexpr std::size_t kMaxPending = 20000;
    using Key = std::pair<Kind, AnyId>;
    struct Reader {
        std::unique_ptr<Database> db;
        std::uint64_t generation = 0;
    };
    struct Snapshot {
        std::vector<PackState> packs;
        std::vector<Row> rows;
    };

    Index(Os& os, std::string path, const Uuid& repo, PackSet& packs, bool read_only)
        : os_(os), path_(std::move(path)), repo_(repo), packs_files_(packs), read_only_(read_only) {}

    // index_db.cpp: the database
    Status open_database(bool discard);
    Status open_or_create(bool discard);
    Status check_database(Database& db);
    Status create_schema(Database& db);
    void remove_database();
    bool database_replaced();
    Result<std::vector<PackState>> load_packs();
    Status write_rows(const Snapshot& snapshot);
    Status write_packs(Database& db, const Snapshot& snapshot, std::map<Uuid, std::int64_t>& numbers);
    Status forget_pack(const Uuid& uuid);
    Status with_reader(const std::function<Status(Database&)>& run);
    Result<std::vector<Row>> find_committed(Kind kind, const AnyId& id);

    // index_scan.cpp: the packs (refresh_mutex_ held)
    Status adopt();
    Status reconcile(const PackState& in_database);
    Status add_unknown(const Uuid& uuid);
    Result<bool> list_new_packs();
    Status scan(const Uuid& uuid, std::uint64_t begin, std::uint64_t end, std::uint64_t next_seq);
    Status load_sealed(PackFile& pack, std::uint64_t size);
    Result<bool> catch_up_others();
    Result<bool> catch_up_one(const PackState& state);
    Result<bool> refresh_locked();
    Result<bool> forget_gone_locked();
    bool same_file(const PackState& state);
    bool tail_is_whole(const PackState& state);
    void insert_rows(PackState& state, const IndexEntry& entry);

    // index.cpp
    Result<std::vector<Row>> find(Kind kind, const AnyId& id, bool all);
    Status sync_now();
    Snapshot snapshot() const;
    void settle(const Snapshot& snapshot);
    std::vector<Row> find_pending(Kind kind, const AnyId& id) const;
    void keep_known(std::vector<Row>& rows) const;
    void forget_state(const Uuid& pack);

    Os& os_;
    const std::string path_;
    const Uuid repo_;
    PackSet& packs_files_;
    const bool read_only_;

    // Lock order: refresh_mutex_, sync_mutex_, database_mutex_, then one of pending_mutex_, readers_mutex_.
    std::mutex refresh_mutex_;  // one thread looks at the directory; guards listed_*
    std::int64_t listed_mtime_ = -1;
    std::int64_t listed_at_ = 0;
    bool unreadable_seen_ = true;  // a pack whose header did not verify when listed: look again

    SyncPack sync_pack_;
    std::mutex sync_mutex_;             // one thread syncs
    mutable std::mutex failure_mutex_;  // guards failure_; a leaf
    std::optional<Error> failure_;

    std::mutex database_mutex_;  // guards database_ (the writing connection)
    std::unique_ptr<Database> database_;
    std::atomic<std::uint64_t> database_inode_{0}, database_device_{0};

    std::mutex readers_mutex_;  // guards readers_
    std::vector<Reader> readers_;
    std::atomic<std::uint64_t> generation_{0};
    std::atomic<bool> has_database_{false};
    std::atomic<std::uint64_t> refreshed_{0};  // refreshes that found something
    std::atomic<bool> adopt_needed_{false};    // index.db is not the one that we knew
    std::atomic<bool> discard_needed_{false};  // and it is damaged

    mutable std::shared_mutex pending_mutex_;  // guards states_, pending_
    std::map<Uuid, PackState> states_;
    std::map<Key, std::vector<Row>> pending_;
    std::atomic<std::size_t> pending_count_{0};
    std::atomic<bool> forgot_any_{false};
};

bool better(const Row& a, const Row& b);

}  // namespace coral::store
