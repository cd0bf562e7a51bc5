// SPDX-License-Identifier: Apache-2.0
#include "coral/repo/ingest.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <limits>
#include <unordered_map>
#include <utility>

#include "coral/base/hash.hpp"
#include "coral/codec/segment_codec.hpp"
#include "repo/adam_parts.hpp"
#include "repo/base_index.hpp"
#include "repo/cutter.hpp"
#include "repo/tensor_bases.hpp"

namespace coral::repo {
namespace {

// Tensors up to this size stay in the FILE record: a segment's index row costs more (docs/format.md, "FILE").
constexpr std::uint64_t kInlineLimit = 64;
// Below it, a segment with three bases costs more in its header than they save.
constexpr std::uint64_t kAdamFrom = 8u << 10;

// Parsers promise this; a broken promise would store wrong bytes under a right name, so it is checked once more.
bool layout_is_sound(const formats::Layout& layout, std::uint64_t size) {
    std::uint64_t position = 0;
    for (const formats::Tensor& tensor : layout.tensors) {
        std::uint64_t end = 0;
        if (tensor.offset < position || !checked_add(tensor.offset, tensor.length, end) || end > size) return false;
        position = end;
    }
    return true;
}

// All as long as can be, but the last?
bool cut_regularly(const std::vector<std::uint64_t>& lengths) {
    return std::all_of(lengths.begin(), lengths.end() - 1, [](std::uint64_t n) { return n == codec::kMaxSegment; });
}

// The source, for as long as it is wanted: whoever reads it, be it a parser or the search for what is stored already,
// ends soon after it is not.
class WantedSource final : public formats::ByteSource {
  public:
    WantedSource(const formats::ByteSource& source, const IngestProgress* progress)
        : source_(source), progress_(progress) {}
    std::uint64_t size() const override { return source_.size(); }
    Status read_at(std::uint64_t offset, MutableBytes out) const override {
        if (progress_ && progress_->cancel) return make_error(Errc::kConflict, "the file is being written again");
        return source_.read_at(offset, out);
    }
    std::uint64_t next_data(std::uint64_t offset) const override { return source_.next_data(offset); }

  private:
    const formats::ByteSource& source_;
    const IngestProgress* progress_;
};

// Bytes of the file, for as long as anybody has need of them.
struct Raw {
    std::shared_ptr<const void> owner;
    Bytes bytes;
};

// A segment to be: its name is known once all tasks are done.
struct Slot {
    SegmentId id;
    std::int64_t tensor = -1;  // -1: skeleton
    std::uint64_t length = 0;
    std::uint32_t crc = 0;
};

// What is stored when the tensors are that it was made with.
struct Later {
    Piece piece;
    Slot* slot = nullptr;
    NamedBases named;
};

class Job {
  public:
    Job(store::Store& store, BaseIndex& similar, ThreadPool& pool, std::size_t in_flight,
        const formats::ByteSource& source, BaseMap& bases, IngestProgress* progress,
        const std::vector<KnownRange>& known)
        : store_(store),
          similar_(similar),
          source_(source, progress),
          bases_(bases),
          progress_(progress),
          known_(known),
          tasks_(pool, in_flight) {}

    Result<Ingested> run() {
        size_ = source_.size();
        similar_.refresh();
        CORAL_TRY(auto layout, formats::parse_layout(source_));
        if (layout && layout_is_sound(*layout, size_)) layout_ = std::move(*layout);
        record_.size = size_;
        record_.parser = static_cast<std::uint16_t>(layout_.parser);
        record_.parser_version = layout_.version;
        start_tensors();
        Status read = read_all();
        tasks_.wait();
        CORAL_CHECK(read);
        if (error_) return std::move(*error_);
        return finish();
    }

  private:
    void start_tensors() {
        for (const formats::Tensor& tensor : layout_.tensors) {
            store::TensorEntry entry;
            entry.name = tensor.name;
            entry.dtype = static_cast<std::uint8_t>(tensor.dtype);
            entry.big_endian = tensor.big_endian;
            entry.shape = tensor.shape;
            entry.offset = tensor.offset;
            entry.length = tensor.length;
            record_.tensors.push_back(std::move(entry));
        }
        tensor_segments_.resize(layout_.tensors.size());
        tensor_slots_.resize(layout_.tensors.size());
        adam_ = adam_parts(record_.tensors);
    }

    Status read_all() {
        Cutter cutter(source_, similar_, bases_, known_);  // holds what the pieces point to
        CORAL_TRY(std::vector<Piece> pieces, cutter.cut(layout_));
        for (const Piece& piece : pieces) {
            if (failed()) break;
            CORAL_TRY(Raw raw, read(piece));
            // A piece of the skeleton is no segment of its own.
            const bool skeleton = piece.tensor < 0 && !piece.found;
            std::optional<SegmentId> id;
            if (skeleton)
                whole_.update(raw.bytes);
            else if (auto both = whole_.update_both(raw.bytes))
                id = SegmentId::from(*both);
            if (progress_) progress_->bytes_read += piece.length;
            if (skeleton)
                CORAL_CHECK(add_skeleton(raw.bytes));
            else if (piece.tensor < 0)
                add_found(piece, std::move(raw), id);
            else
                add_tensor_piece(piece, std::move(raw), id);
        }
        CORAL_CHECK(end_skeleton());
        // The first moments are stored; then the second, which are made with these, and the weights, with both.
        for (codec::Formula formula : {codec::Formula::kAdamVariance, codec::Formula::kAdamWeights}) {
            CORAL_CHECK(put_later(formula));
        }
        return {};
    }

    Result<Raw> read(const Piece& piece) {
        // Not zeroed first, as a Buffer is.
        auto memory = std::make_shared_for_overwrite<std::byte[]>(piece.length);
        MutableBytes bytes(memory.get(), piece.length);
        CORAL_CHECK(source_.read_at(piece.offset, bytes));
        return Raw{std::move(memory), bytes};
    }

    void add_tensor_piece(const Piece& piece, Raw raw, const std::optional<SegmentId>& id) {
        auto index = static_cast<std::size_t>(piece.tensor);
        store::TensorEntry& tensor = record_.tensors[index];
        if (tensor.length <= kInlineLimit) {
            tensor.crc32 = crc32(raw.bytes);
            add_inline(raw.bytes);
            return;
        }
        record_.extents.push_back({new_slot(piece.tensor, piece.length), 0, piece.length});
        NamedBases named =
            piece.found ? found_base(*piece.found) : named_bases(bases_, tensor, piece.tensor_offset, piece.nth);
        if (!piece.found && named.same && adam_[index].formula != codec::Formula::kNone && piece.length >= kAdamFrom) {
            // Named now, so that the second reading is known to bring the same bytes.
            Slot& slot = slots_.back();
            if (id)
                slot.id = *id;
            else
                tasks_.run([&slot, raw = std::move(raw)] { slot.id = SegmentId::from(Sha256::of(raw.bytes)); });
            later_.push_back({piece, &slot, std::move(named)});
        } else
            put(slots_.back(), std::move(raw), id, hint_of(tensor), std::move(named));
    }

    // Read once more rather than held: there may be gigabytes.
    Status put_later(codec::Formula formula) {
        bool any = false;
        for (Later& later : later_) {
            const auto index = static_cast<std::size_t>(later.piece.tensor);
            if (adam_[index].formula != formula || failed()) continue;
            if (!std::exchange(any, true)) tasks_.wait();
            CORAL_TRY(Raw raw, read(later.piece));
            add_inputs(adam_[index], later);
            put(*later.slot, std::move(raw), std::nullopt, hint_of(record_.tensors[index]), std::move(later.named));
        }
        return {};
    }

    // The pieces of the other tensors that have the same elements, if these are cut alike.
    void add_inputs(const AdamPart& part, Later& later) {
        auto now = [&](std::size_t tensor) -> const Slot* {
            const std::vector<Slot*>& slots = tensor_slots_[tensor];
            if (later.piece.nth >= slots.size() || slots[later.piece.nth]->length != later.piece.length) return nullptr;
            return slots[later.piece.nth];
        };
        const Slot* first = now(part.first);
        if (!first || later.piece.tensor_offset != later.piece.nth * std::uint64_t{codec::kMaxSegment}) return;
        if (part.formula == codec::Formula::kAdamWeights) {
            const Slot* second = now(part.second);
            if (!second) return;
            later.named.second = second->id;
        } else {
            const store::TensorEntry& moment = record_.tensors[part.first];
            auto same = named_bases(bases_, moment, later.piece.tensor_offset, later.piece.nth).same;
            if (!same) return;
            later.named.second = *same;
        }
        later.named.first = first->id;
        later.named.formula = part.formula;
    }

    // A stored segment, or a part of one, in bytes that no parser knows: a segment of its own.
    void add_found(const Piece& piece, Raw raw, const std::optional<SegmentId>& id) {
        record_.extents.push_back({new_slot(-1, piece.length), 0, piece.length});
        put(slots_.back(), std::move(raw), id, piece.found->hint, found_base(*piece.found));
    }

    static NamedBases found_base(const Found& found) {
        NamedBases named;
        named.same = found.id;
        named.offset = found.offset;
        return named;
    }

    // A segment that the reading thread has not named (`known`) gets its name on the pool, as it gets its CRC: that
    // thread already hashes every byte for the file's name.
    void put(Slot& slot, Raw raw, const std::optional<SegmentId>& known, codec::Hint hint, NamedBases named) {
        tasks_.run([this, &slot, raw = std::move(raw), known, hint, named = std::move(named)] {
            if (failed()) return;
            const SegmentId id = known ? *known : SegmentId::from(Sha256::of(raw.bytes));
            const bool changed = !slot.id.is_zero() && slot.id != id;
            slot.id = id;
            if (slot.tensor >= 0) slot.crc = crc32(raw.bytes);
            auto put = changed ? Result<store::Put>(make_error(Errc::kConflict, "the file changed while it was read"))
                               : put_with_base(id, raw.bytes, hint, named);
            std::lock_guard lock(mutex_);
            if (put)
                stored_ += put->stored_bytes;
            else if (!error_)
                error_ = std::move(put).error();
        });
    }

    // The base is what the name suggests, or what looks more alike; what is the same in another type is tried, too.
    Result<store::Put> put_with_base(const SegmentId& id, Bytes raw, codec::Hint hint, const NamedBases& named) {
        std::optional<Sketch> sketch;
        std::optional<BaseIndex::Choice> choice;
        if (named.same) choice = BaseIndex::Choice{*named.same, std::numeric_limits<double>::infinity()};
        if (hint.element != codec::Hint::Class::kBytes && raw.size() >= kSketchFrom) {
            CORAL_TRY(bool there, store_.contains(store::Kind::kSegment, AnyId::from(id)));
            if (there) return store::Put{true, 0, 0};
            sketch = sketch_of(raw, hint);
            // Of a part of a segment, sketches tell nothing.
            if (named.offset == 0) choice = similar_.choose(*sketch, named.same);
            // Another process may have removed it: what the name suggests is better than nothing.
            if (choice && named.same && choice->id != *named.same) {
                CORAL_TRY(bool usable, store_.contains(store::Kind::kSegment, AnyId::from(choice->id)));
                if (!usable) choice = BaseIndex::Choice{*named.same, std::numeric_limits<double>::infinity()};
            }
        }
        std::vector<store::BaseCandidate> candidates;
        if (choice && choice->id != id) {
            bool by_name = named.same && choice->id == *named.same;
            if (!by_name && named.formula != codec::Formula::kNone) candidates.push_back(made_from(named));
            candidates.push_back(by_name ? made_from(named) : store::BaseCandidate{choice->id});
        }
        // A cast cannot tell the bits that it lacks: where fewer are expected, it need not be read.
        if (named.cast && !(choice && choice->bits < named.narrower)) candidates.push_back(*named.cast);
        CORAL_TRY(store::Put put, store_.put_segment(id, raw, hint, candidates));
        if (sketch && !put.existed) similar_.add(id, *sketch, anchors_of(raw), put.depth);
        return put;
    }

    static store::BaseCandidate made_from(const NamedBases& named) {
        return {.id = *named.same,
                .offset = named.offset,
                .formula = named.formula,
                .first = named.first,
                .second = named.second};
    }

    // ---- skeleton: one stream, cut at 16 MiB like a tensor. Its extents are placed as bytes arrive and get their
    // segment once the stream's segment is full.
    Status add_skeleton(Bytes bytes) {
        while (!bytes.empty()) {
            std::size_t room = codec::kMaxSegment - skeleton_.size();
            std::size_t take = std::min(room, bytes.size());
            record_.extents.push_back({kPending, skeleton_.size(), take});
            skeleton_.insert(skeleton_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(take));
            skeleton_total_ += take;
            bytes = bytes.subspan(take);
            if (skeleton_.size() == codec::kMaxSegment) close_skeleton_segment();
        }
        return {};
    }

    void close_skeleton_segment() {
        auto stream = std::make_shared<const Buffer>(std::move(skeleton_));
        skeleton_ = {};
        resolve_pending(new_slot(-1, stream->size()), 0);
        put(slots_.back(), Raw{stream, *stream}, std::nullopt, codec::Hint{}, NamedBases{});
    }

    Status end_skeleton() {
        if (skeleton_.empty()) return {};
        if (skeleton_total_ <= kInlineLimit) {
            std::uint64_t at = record_.inline_bytes.size();
            record_.inline_bytes.insert(record_.inline_bytes.end(), skeleton_.begin(), skeleton_.end());
            resolve_pending(store::Extent::kInline, at);
        } else {
            close_skeleton_segment();
        }
        return {};
    }

    void resolve_pending(std::uint32_t segment, std::uint64_t shift) {
        for (; first_pending_ < record_.extents.size(); ++first_pending_) {
            store::Extent& extent = record_.extents[first_pending_];
            if (extent.segment != kPending) continue;
            extent.segment = segment;
            extent.offset += shift;
        }
    }

    void add_inline(Bytes bytes) {
        record_.extents.push_back({store::Extent::kInline, record_.inline_bytes.size(), bytes.size()});
        record_.inline_bytes.insert(record_.inline_bytes.end(), bytes.begin(), bytes.end());
    }

    std::uint32_t new_slot(std::int64_t tensor, std::uint64_t length) {
        slots_.push_back({SegmentId{}, tensor, length, 0});
        if (tensor >= 0) tensor_slots_[static_cast<std::size_t>(tensor)].push_back(&slots_.back());
        return static_cast<std::uint32_t>(slots_.size() - 1);
    }

    // Once all names are known: extents point to the table of distinct segments instead of slots.
    void name_segments() {
        std::unordered_map<SegmentId, std::uint32_t> numbers;
        std::vector<std::uint32_t> number_of;
        for (const Slot& slot : slots_) {
            auto [at, fresh] = numbers.try_emplace(slot.id, static_cast<std::uint32_t>(record_.segments.size()));
            if (fresh) record_.segments.push_back(slot.id);
            number_of.push_back(at->second);
            if (slot.tensor < 0) continue;
            auto index = static_cast<std::size_t>(slot.tensor);
            tensor_segments_[index].segments.push_back(slot.id);
            tensor_segments_[index].lengths.push_back(slot.length);
            store::TensorEntry& tensor = record_.tensors[index];
            tensor.crc32 = crc32_combine(tensor.crc32, slot.crc, slot.length);
        }
        for (store::Extent& extent : record_.extents) {
            if (extent.segment != store::Extent::kInline) extent.segment = number_of[extent.segment];
        }
    }

    bool failed() {
        std::lock_guard lock(mutex_);
        return error_.has_value();
    }

    Result<Ingested> finish() {
        record_.id = FileId::from(whole_.finish());
        name_segments();
        CORAL_TRY(store::Put put, store_.put_file(record_));
        similar_.flush();
        for (std::size_t i = 0; i < tensor_segments_.size(); ++i) {
            BaseMap::Entry& entry = tensor_segments_[i];
            if (entry.segments.empty()) continue;
            const store::TensorEntry& tensor = record_.tensors[i];
            entry.length = tensor.length;
            if (cut_regularly(entry.lengths)) entry.lengths.clear();
            bases_.put(tensor.name, tensor.dtype, std::move(entry));
        }
        return Ingested{record_.id, size_, stored_ + put.stored_bytes, put.existed};
    }

    static constexpr std::uint32_t kPending = store::Extent::kInline - 1;

    store::Store& store_;
    BaseIndex& similar_;
    const WantedSource source_;
    BaseMap& bases_;
    IngestProgress* progress_;
    const std::vector<KnownRange>& known_;
    std::uint64_t size_ = 0;
    formats::Layout layout_;
    store::FileRecord record_;
    DualSha256 whole_;  // the file's name, and most segments'
    Buffer skeleton_;
    std::uint64_t skeleton_total_ = 0;
    std::size_t first_pending_ = 0;
    std::deque<Slot> slots_;  // a deque: tasks hold references
    std::vector<BaseMap::Entry> tensor_segments_;
    std::vector<std::vector<Slot*>> tensor_slots_;  // by tensor, in order
    std::vector<AdamPart> adam_;                    // by tensor
    std::vector<Later> later_;
    std::mutex mutex_;  // guards error_, stored_
    std::optional<Error> error_;
    std::uint64_t stored_ = 0;
    TaskGroup tasks_;  // last: its destructor waits for tasks that use the rest
};

}  // namespace

Status FileSource::read_at(std::uint64_t offset, MutableBytes out) const {
    CORAL_TRY(std::size_t got, file_->read_at(offset, out));
    if (got != out.size()) return make_error(Errc::kConflict, "the file became shorter while it was read");
    return {};
}

Ingestor::Ingestor(store::Store& store, BaseIndex& similar, ThreadPool& pool, std::size_t in_flight)
    : store_(store), similar_(similar), pool_(pool), in_flight_(std::max<std::size_t>(in_flight, 1)) {}

Result<Ingested> Ingestor::ingest(const formats::ByteSource& source, BaseMap& bases, IngestProgress* progress,
                                  const std::vector<KnownRange>& known) {
    if (source.size() > kMostFileBytes) {
        return make_error(Errc::kTooLarge,
                          fmt::format("{} bytes: a file of more than 16 TiB ({} bytes) cannot be stored", source.size(),
                                      kMostFileBytes));
    }
    return Job(store_, similar_, pool_, in_flight_, source, bases, progress, known).run();
}

}  // namespace coral::repo
