// SPDX-License-Identifier: Apache-2.0
// Store::collect: which packs go, what of them must be copied first, and the moment in which they go. Why nothing that
// is needed can go with them: docs/architecture.md, "Removing".
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "store/store_impl.hpp"

namespace coral::store {

class Collector {
  public:
    Collector(StoreImpl& store, LiveSet& live, const CollectOptions& options);
    Result<CollectReport> run();
    // For StoreImpl::rewrite_segment; instead of run().
    Result<RewriteLimits> limits();

  private:
    using EachEntry = std::function<Status(const IndexEntry&)>;
    struct Candidate {
        PackState state;
        std::uint64_t size = 0;                      // of the file
        std::uint64_t needed = 0, needed_index = 0;  // bytes of records that must be copied, and of their INDEX entries
        std::uint64_t records = 0;                   // bytes of all records
        std::uint64_t replaced = 0;                  // bytes of records that others stand for now
        bool young = false;                          // was written to within the grace period
        std::unique_ptr<File> lock;                  // of one that is not sealed: nobody goes on with it
    };
    using Batch = std::vector<Candidate>;

    // collector_plan.cpp
    Status prepare();
    Status close_bases();
    Status add_needs(PackFile& pack, const IndexEntry& entry);
    Status each_entry(const PackState& state, std::uint64_t from, const EachEntry& visit);
    Status plan();
    Status measure(Candidate& candidate);
    Result<bool> take(Candidate& candidate);
    bool is_torn_only(const Candidate& candidate);
    bool is_live(const IndexEntry& entry) const;
    Result<bool> is_needed(PackFile& pack, const IndexEntry& entry, bool young);
    Result<bool> is_best(const PackState& state, const IndexEntry& entry);
    bool is_worth_it(const Candidate& candidate) const;
    bool is_torn(const Candidate& candidate) const;
    void keep(const PackState& state, std::string why);
    void predict(const Batch& batch);

    // collector_choice.cpp: which of several records stays
    Status prepare_choice();
    Status find_old_cuts();
    void note_bases(const IndexEntry& entry, bool late);
    Result<std::optional<Row>> chosen(Kind kind, const AnyId& id);
    Result<Row> chosen_file(const AnyId& id, const std::vector<Row>& rows);
    Result<bool> is_replaced_whole(Kind kind, const AnyId& id, const Row& row);
    bool is_of_old_cut(const IndexEntry& entry) const;

    // collector.cpp
    Batch next_batch();
    Status copy_batch(Batch& batch);
    Status copy_pack(const Candidate& candidate);
    Status copy_record(PackFile& pack, const IndexEntry& entry);
    Status rely_on_others(const PackState& state, const IndexEntry& entry, PackFile& pack);
    Status read_whole(const Row& row);
    Status check_new_packs();
    Result<SessionLock::Alone> be_alone();
    Status remove_batch(Batch& batch);
    Status look_again();
    Status add_needs_of_late();
    Status add_new_cut(const AnyId& id);
    Result<bool> is_used_again(const Candidate& candidate);
    Status remove_files(SessionLock::Alone& alone, Batch& batch);
    void advance(std::uint64_t bytes);
    bool cancelled() const { return options_.cancelled && options_.cancelled(); }

    StoreImpl& store_;
    LiveSet& live_;
    const CollectOptions& options_;
    CollectReport report_;
    PackWriter writer_;  // into packs of its own: none of them is one that goes
    LiveSet twice_;      // ids with several records
    LiveSet old_cuts_;   // segments of files that have been cut anew
    // With `replace`, of ids in twice_: the smallest depth of what refers to them, in whatever record.
    std::unordered_map<AnyId, std::uint32_t> lowest_dependant_;
    LiveSet late_bases_;                       // in which that has become smaller since the choice was made
    std::map<Uuid, std::uint64_t> seen_to_;    // how far each pack's records have been looked at
    Batch todo_;                               // what goes without being copied first, then what costs least
    std::map<Uuid, std::uint64_t> new_packs_;  // written here; bytes
    std::vector<Uuid> gone_;
    std::uint64_t done_ = 0, total_ = 0;
};

}  // namespace coral::store
