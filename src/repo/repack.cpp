// SPDX-License-Identifier: Apache-2.0
// Storing in fewer bytes what is there. First records are added (files cut anew, segments with better bases), oldest
// file first; then Store::collect takes away those that they replace. Stopped anywhere in between, what was added is of
// use to the next run and in nobody's way.
#include "repo/repack.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "coral/base/log.hpp"
#include "repo/mark.hpp"

namespace coral::repo {
namespace {

using store::Kind;

constexpr std::size_t kTried = 4;  // candidates a segment

// A file as the store has it.
class StoredSource final : public formats::ByteSource {
  public:
    StoredSource(store::Store& store, std::shared_ptr<const store::FileRecord> record)
        : store_(store), record_(std::move(record)) {}
    std::uint64_t size() const override { return record_->size; }
    Status read_at(std::uint64_t offset, MutableBytes out) const override {
        CORAL_TRY(std::size_t got, store_.read_file(*record_, offset, out));
        if (got != out.size()) return make_error(Errc::kCorrupt, "a stored file ends early");
        return {};
    }

  private:
    store::Store& store_;
    std::shared_ptr<const store::FileRecord> record_;
};

// One damaged file or segment is fsck's matter: the rest can be repacked all the same.
bool is_damage(const Error& error) {
    return error.code == Errc::kCorrupt || error.code == Errc::kNotFound || error.code == Errc::kNoData;
}

bool is_better_cut(const formats::Layout& now, const store::FileRecord& stored) {
    if (stored.parser == 0) return now.parser != formats::Parser::kNone;
    return now.parser != formats::Parser::kNone && now.version > stored.parser_version;
}

}  // namespace

Repacker::Repacker(Repository& repo, ThreadPool& pool, const RepackOptions& options, RepackReport& report)
    : repo_(repo),
      store_(repo.store()),
      similar_(repo.base_index()),
      options_(options),
      report_(report),
      pool_(pool),
      ingestor_(store_, similar_, pool, pool.size() + 2) {}

Status Repacker::run(std::int64_t reflog_from) {
    Marker marker(repo_, live_, reflog_from, options_.cancelled);
    CORAL_CHECK(marker.run());
    CORAL_TRY(limits_, store_.rewrite_limits());
    CORAL_CHECK(list_files());
    for (const File& file : files_) {
        if (cancelled()) return make_error(Errc::kConflict, "interrupted");
        Status done = improve(file.id);
        if (!done && !is_damage(done.error())) return done;
        if (!done) report_.skipped.push_back(fmt::format("file {}: {}", file.id.hex(), done.error().message));
        advance(file.size);
    }
    return {};
}

void Repacker::advance(std::uint64_t bytes) {
    done_ += bytes;
    if (options_.progress) options_.progress(done_, total_);
}

// ---- the order: what came first can be a base of what came later

Status Repacker::list_files() {
    std::vector<CommitId> tips;
    CORAL_TRY(std::vector<Ref> refs, repo_.refs(""));
    for (const Ref& ref : refs) {
        CORAL_TRY(bool tag, store_.contains(Kind::kTag, ref.target));
        if (!tag) {
            tips.push_back(CommitId::from(ref.target));
            continue;
        }
        CORAL_TRY(auto object, repo_.tag(TagId::from(ref.target)));
        tips.push_back(object->target);
    }
    std::vector<TreeId> roots;
    CORAL_CHECK(repo_.walk(tips, [&](const CommitId&, const Commit& commit) -> Result<bool> {
        roots.push_back(commit.tree);
        return !cancelled();
    }));
    for (auto root = roots.rbegin(); root != roots.rend(); ++root) CORAL_CHECK(list_tree(*root));
    // And what has no commit (yet).
    CORAL_TRY(std::vector<AnyId> all, store_.find_prefix(Kind::kFile, "", SIZE_MAX));
    for (const AnyId& id : all) {
        if (!live_.contains(Kind::kFile, id) || met_.contains(Kind::kFile, id)) continue;
        CORAL_TRY(auto record, store_.file(FileId::from(id)));
        add_file(record->id, record->size);
    }
    return {};
}

Status Repacker::list_tree(const TreeId& root) {
    std::vector<TreeId> trees = {root};
    while (!trees.empty()) {
        TreeId id = trees.back();
        trees.pop_back();
        if (!met_.add(Kind::kTree, AnyId::from(id))) continue;
        CORAL_TRY(auto tree, repo_.tree(id));
        for (const TreeEntry& entry : tree->entries) {
            if (entry.type == EntryType::kDirectory) trees.push_back(TreeId::from(entry.content));
            if (entry.type == EntryType::kFile) add_file(FileId::from(entry.content), entry.size);
        }
    }
    return {};
}

void Repacker::add_file(const FileId& id, std::uint64_t size) {
    if (!live_.contains(Kind::kFile, AnyId::from(id)) || !met_.add(Kind::kFile, AnyId::from(id))) return;
    files_.push_back({id, size});
    total_ += size;
}

// ---- one file

Status Repacker::improve(const FileId& id) {
    ++report_.files;
    CORAL_TRY(auto record, store_.file(id));
    CORAL_TRY(bool cut, cut_anew(record));
    if (cut) {
        CORAL_TRY(record, store_.file(id));
    } else {
        CORAL_CHECK(encode_anew(*record));
    }
    bases_.learn(*record);
    for (const SegmentId& segment : record->segments) seen_.add(Kind::kSegment, AnyId::from(segment));
    similar_.flush();
    return {};
}

// Most files tell from their first bytes that there is nothing new about them.
Result<bool> Repacker::cut_anew(const std::shared_ptr<const store::FileRecord>& record) {
    StoredSource source(store_, record);
    CORAL_TRY(auto layout, formats::parse_layout(source));
    if (!layout || !is_better_cut(*layout, *record)) return false;
    for (const SegmentId& segment : record->segments) {
        CORAL_TRY(store::SegmentInfo info, store_.segment_info(segment));
        if (limits_.held.contains(info.pack)) return false;
    }
    ++report_.files_cut;
    if (options_.dry_run) return false;
    CORAL_TRY(store::Session session, store_.session());
    CORAL_TRY(Ingested stored, ingestor_.ingest(source, bases_));
    if (stored.file == record->id) return true;
    return make_error(Errc::kCorrupt, fmt::format("its bytes are of {}", stored.file.hex()));
}

Status Repacker::encode_anew(const store::FileRecord& record) {
    TaskGroup tasks(pool_, pool_.size() + 2);
    std::vector<Work> work;
    each_cut_tensor(record, [&](const store::TensorEntry& tensor, BaseMap::Entry entry) {
        std::uint64_t offset = 0;
        for (std::size_t nth = 0; nth < entry.segments.size(); ++nth) {
            std::uint64_t length = std::min<std::uint64_t>(tensor.length - offset, codec::kMaxSegment);
            if (!entry.lengths.empty()) length = entry.lengths[nth];
            const std::uint64_t begin = std::exchange(offset, offset + length);
            if (length < kSketchFrom || !tried_.add(Kind::kSegment, AnyId::from(entry.segments[nth]))) continue;
            work.push_back({entry.segments[nth], hint_of(tensor), named_bases(bases_, tensor, begin, nth)});
        }
    });
    for (const SegmentId& segment : record.segments) {
        if (options_.all && tried_.add(Kind::kSegment, AnyId::from(segment))) work.push_back({segment, {}, {}});
    }
    for (const Work& one : work) {
        if (cancelled()) break;
        tasks.run([this, &one] {
            if (!failed()) note(one.id, encode_anew(one));
        });
    }
    tasks.wait();
    std::lock_guard lock(mutex_);
    return error_ ? Status(Error(*error_)) : Status();
}

bool Repacker::failed() {
    std::lock_guard lock(mutex_);
    return error_.has_value();
}

void Repacker::note(const SegmentId& id, const Result<store::Rewrite>& result) {
    std::lock_guard lock(mutex_);
    ++report_.segments;
    if (result && result->better) {
        ++report_.segments_encoded;
        report_.segments_saved += result->before - result->after;
    }
    if (result) return;
    if (is_damage(result.error()))
        report_.skipped.push_back(fmt::format("segment {}: {}", id.hex(), result.error().message));
    else if (!error_)
        error_ = result.error();
}

// ---- one segment

// Candidates by what they are expected to cost; without --all, only those that promise something.
std::vector<store::BaseCandidate> Repacker::candidates_of(const Work& work, const Sketch& sketch,
                                                          const store::SegmentInfo& info) {
    auto allowed = [&](const SegmentId& id) {
        if (id == work.id || !seen_.contains(Kind::kSegment, AnyId::from(id))) return false;
        return options_.all ||
               std::none_of(info.bases.begin(), info.bases.end(), [&](auto& base) { return base.id == id; });
    };
    const double bits = 8.0 * static_cast<double>(info.stored_bytes) / (info.raw_length / work.hint.width);
    std::vector<store::BaseCandidate> out;
    if (work.named.same && allowed(*work.named.same)) {
        auto base = similar_.sketch(*work.named.same);
        if (options_.all || !base || delta_estimate(sketch, *base) < bits) out.push_back({*work.named.same, 0, 0, {}});
    }
    for (const BaseIndex::Choice& choice : similar_.nearest(sketch, kTried, allowed)) {
        bool known = std::any_of(out.begin(), out.end(), [&](auto& candidate) { return candidate.id == choice.id; });
        if (!known && out.size() < kTried && (options_.all || choice.bits < bits)) out.push_back({choice.id, 0, 0, {}});
    }
    if (!work.named.cast || out.size() == kTried || !allowed(work.named.cast->id)) return out;
    if (!options_.all && info.depth > 0) return out;  // nothing is known of what it would cost
    store::BaseCandidate cast = *work.named.cast;
    if (!cast.next.is_zero() && !allowed(cast.next)) cast.next = {};
    out.push_back(cast);
    return out;
}

Result<store::Rewrite> Repacker::encode_anew(const Work& work) {
    CORAL_TRY(store::SegmentInfo info, store_.segment_info(work.id));
    if (info.grouped || limits_.held.contains(info.pack)) return store::Rewrite{};
    const bool base_fits = limits_.dependants.lowest(work.id) > 1;
    if (!base_fits && !options_.all) return store::Rewrite{};
    Buffer raw;
    std::vector<store::BaseCandidate> candidates;
    if (work.hint.element != codec::Hint::Class::kBytes && info.raw_length >= kSketchFrom) {
        auto sketch = similar_.sketch(work.id);
        if (!sketch || sketch->hint != work.hint) {
            CORAL_TRY(raw, store_.read_segment(work.id));
            sketch = std::make_shared<const Sketch>(sketch_of(raw, work.hint));
            similar_.add(work.id, *sketch, anchors_of(raw), info.depth);
        }
        candidates = candidates_of(work, *sketch, info);
    }
    if (candidates.empty() && !options_.all) return store::Rewrite{};
    if (raw.empty()) {
        CORAL_TRY(raw, store_.read_segment(work.id));
    }
    return store_.rewrite_segment(work.id, raw, work.hint, candidates, limits_, options_.dry_run);
}

// ---- all of it

Result<RepackReport> Repository::repack(ThreadPool& pool, const RepackOptions& options) {
    CORAL_TRY(std::unique_ptr<File> lock, begin_removal(options.dry_run));
    RepackReport report;
    CORAL_TRY(store::StoreStats before, store_->stats());
    report.before_bytes = report.after_bytes = before.pack_bytes;
    CORAL_TRY(std::int64_t grace, gc_grace());
    GcOptions collecting;
    collecting.prune_before = now_ns() - grace;
    base_index_->refresh();
    CORAL_CHECK(Repacker(*this, pool, options, report).run(collecting.prune_before));
    if (options.dry_run) {
        report.after_bytes -= std::min(report.after_bytes, report.segments_saved);
        return report;
    }
    // On the disk, and in packs that are not ours: so that these can be looked through and taken away like any other.
    CORAL_CHECK(store_->sync());
    CORAL_CHECK(store_->seal());
    collecting.patience = options.patience;
    collecting.progress = options.copying;
    collecting.cancelled = options.cancelled;
    CORAL_TRY(GcReport collected, collect(collecting, true));
    report.packs = std::move(collected.packs);
    CORAL_TRY(store::StoreStats after, store_->stats());
    report.after_bytes = after.pack_bytes;
    return report;
}

}  // namespace coral::repo
