// SPDX-License-Identifier: Apache-2.0
// One chunk, coded alone (SOLO), as differences from a base (DELTA), or as numbers of few values (PALETTE).
#include <algorithm>
#include <array>
#include <cstring>

#include "codec/byte_stats.hpp"
#include "codec/delta_base.hpp"
#include "codec/palette.hpp"
#include "codec/tensor_model.hpp"

namespace coral::codec {
namespace {

enum Plane : std::uint8_t {
    kPlaneRaw = 0,
    kPlaneShared = 1,
    kPlaneConstant = 2,
    kPlaneOwn = 3,
    kPlaneMasked = 4,
    kPlaneParts = 5
};
// A plane is coded only where the first one is not zero, if this share of it is: pruned weights.
constexpr std::size_t kMaskedShare = 16;  // at least n / 16

const std::uint8_t* data(Bytes bytes) {
    return reinterpret_cast<const std::uint8_t*>(bytes.data());
}
std::uint8_t* data(MutableBytes bytes) {
    return reinterpret_cast<std::uint8_t*>(bytes.data());
}

Error cut_off() {
    return make_error(Errc::kCorrupt, "coded chunk is cut off");
}

// Arrays of bytes, one entry an element, that live as long as the thread.
std::uint8_t* lane(unsigned number, std::size_t n) {
    thread_local std::array<std::vector<std::uint8_t>, 24> lanes;
    std::vector<std::uint8_t>& v = lanes[number];
    if (v.size() < n + kSlack) v.resize(n + kSlack);
    return v.data();
}
constexpr unsigned kLanePlanes = 0, kLaneSymbol = 8, kLaneKey = 9, kLaneCount = 10, kLaneLead = 11, kLanePart = 12,
                   kLaneExtra = 13, kLaneStream = 21, kLaneBase = 22;

unsigned log2_of(unsigned width) {
    return static_cast<unsigned>(std::countr_zero(width));
}

// Elements of other byte order are turned round before and after.
void swap_bytes(std::uint8_t* bytes, std::size_t elements, unsigned width) {
    for (std::size_t i = 0; i < elements; ++i) std::reverse(bytes + i * width, bytes + (i + 1) * width);
}

void encode_plane(const Kernels& k, const PivotTree* shared, const std::uint8_t* plane, std::size_t n, Buffer& to) {
    BitWriter out(to);
    auto kind = [&](Plane p) { out.put_byte(p); };
    auto raw = [&] {
        kind(kPlaneRaw);
        out.put_bytes(plane, n);
    };
    if (n == 0 || (!shared && looks_random(plane, n))) return raw();
    Histogram counts = histogram_of(plane, n);
    if (counts[plane[0]] == n) {
        kind(kPlaneConstant);
        out.put_byte(plane[0]);
        return;
    }
    auto size = static_cast<double>(8 * n);
    double by_shared = shared ? shared->cost(counts) : 2 * size;
    double own_floor = entropy_bits(counts, n) + 8 * 24;
    std::optional<PivotTree> own;
    double by_own = 2 * size;
    if (own_floor < std::min(by_shared * 0.995, size * 0.99)) {
        own.emplace(code_lengths(counts), &counts);
        by_own = own->cost(counts) + 8.0 * static_cast<double>(own->written_size());
    }
    if (std::min(by_own, by_shared) > size * 0.99) return raw();
    std::size_t before = to.size();
    if (by_own < by_shared) {
        kind(kPlaneOwn);
        out.align();
        own->write(to);
        own->encode(k, plane, n, out);
    } else {
        kind(kPlaneShared);
        shared->encode(k, plane, n, out);
    }
    out.align();
    if (to.size() - before <= n) return;
    to.resize(before);
    raw();
}

Status decode_plane(const Kernels& k, const PivotTree* shared, BitReader& in, std::size_t n, std::uint8_t* out) {
    const std::uint8_t* kind = in.take_bytes(1);
    if (!kind) return cut_off();
    switch (*kind) {
        case kPlaneRaw: {
            const std::uint8_t* bytes = in.take_bytes(n);
            if (!bytes) return cut_off();
            std::memcpy(out, bytes, n);
            return {};
        }
        case kPlaneShared:
            if (!shared) return make_error(Errc::kCorrupt, "plane without its table");
            return shared->decode(k, in, n, out);
        case kPlaneConstant: {
            const std::uint8_t* value = in.take_bytes(1);
            if (!value) return cut_off();
            std::memset(out, *value, n);
            return {};
        }
        case kPlaneOwn: {
            CORAL_TRY(PivotTree tree, PivotTree::read(in));
            return tree.decode(k, in, n, out);
        }
        default:
            return make_error(Errc::kCorrupt, "plane of no kind");
    }
}

std::uint8_t class_first(const DeltaModel& model, std::size_t c) {
    return c == 0 ? std::uint8_t{0} : static_cast<std::uint8_t>(model.last[c - 1] + 1);
}

DeltaArrays arrays_of(unsigned extra_bytes, std::size_t n) {
    DeltaArrays arrays;
    arrays.symbol = lane(kLaneSymbol, n);
    arrays.part = lane(kLanePart, n);
    for (unsigned j = 0; j < extra_bytes; ++j) arrays.extra[j] = lane(kLaneExtra + j, n);
    return arrays;
}

}  // namespace

namespace {

// Is b zero wherever a is?
bool zero_where(const std::uint8_t* a, const std::uint8_t* b, std::size_t n) {
    unsigned other = 0;
    for (std::size_t i = 0; i < n; ++i) other |= a[i] == 0 ? b[i] : 0u;
    return other == 0;
}

Status decode_masked(const Kernels& k, BitReader& in, const std::uint8_t* first, std::size_t n, std::uint8_t* out) {
    std::uint8_t* stream = lane(kLaneStream, n);
    const std::size_t some = k.in_range(first, n, 1, 255);
    CORAL_CHECK(decode_plane(k, nullptr, in, some, stream));
    std::memset(out, 0, n);
    k.expand(stream, some, first, n, 1, 255, out);
    return {};
}

// A plane of the elements whose first plane is not zero, then one of the others: pruned weights that kept their sign.
void encode_parts(const Kernels& k, const std::uint8_t* first, const std::uint8_t* plane, std::size_t n, Buffer& out) {
    std::uint8_t* stream = lane(kLaneStream, n);
    out.push_back(static_cast<std::byte>(kPlaneParts));
    encode_plane(k, nullptr, stream, k.compress(plane, first, n, 1, 255, stream), out);
    encode_plane(k, nullptr, stream, k.compress(plane, first, n, 0, 0, stream), out);
}

Status decode_parts(const Kernels& k, BitReader& in, const std::uint8_t* first, std::size_t n, std::uint8_t* out) {
    CORAL_CHECK(decode_masked(k, in, first, n, out));
    in.align();
    std::uint8_t* stream = lane(kLaneStream, n);
    const std::size_t some = k.in_range(first, n, 0, 0);
    CORAL_CHECK(decode_plane(k, nullptr, in, some, stream));
    k.expand(stream, some, first, n, 0, 0, out);
    return {};
}

}  // namespace

namespace {

// The table of each byte of a chunk that begins `at` bytes behind the first block.
std::uint8_t* tables_of(const Columns& columns, std::size_t n, std::size_t at) {
    std::uint8_t* tables = lane(kLaneKey, n);
    const std::size_t block = columns.table_of.size();
    for (std::size_t i = 0; i < std::min(n, block); ++i) tables[i] = columns.table_of[(at + i) % block];
    for (std::size_t done = block; done < n; done *= 2) {
        std::memcpy(tables + done, tables, std::min(done, n - done));
    }
    return tables;
}

bool encode_columns(const Kernels& k, const Columns& columns, Bytes raw, std::size_t at, Buffer& out) {
    const std::size_t n = raw.size(), before = out.size();
    const std::uint8_t* tables = tables_of(columns, n, at);
    std::uint8_t* stream = lane(kLaneStream, n);
    for (std::size_t t = 0; t < columns.tables.size(); ++t) {
        const auto number = static_cast<std::uint8_t>(t);
        encode_plane(k, &columns.tables[t], stream, k.compress(data(raw), tables, n, number, number, stream), out);
    }
    if (out.size() - before < n) return true;
    out.resize(before);
    return false;
}

Status decode_columns(const Kernels& k, const Columns& columns, Bytes stored, std::size_t at, MutableBytes out) {
    const std::size_t n = out.size();
    BitReader in(stored);
    const std::uint8_t* tables = tables_of(columns, n, at);
    std::uint8_t* stream = lane(kLaneStream, n);
    std::uint8_t* bytes = lane(kLaneSymbol, n);
    for (std::size_t t = 0; t < columns.tables.size(); ++t) {
        const auto number = static_cast<std::uint8_t>(t);
        const std::size_t some = k.in_range(tables, n, number, number);
        CORAL_CHECK(decode_plane(k, &columns.tables[t], in, some, stream));
        in.align();
        k.expand(stream, some, tables, n, number, number, bytes);
    }
    if (!in.at_end()) return make_error(Errc::kCorrupt, "coded chunk of a wrong length");
    std::memcpy(data(out), bytes, n);
    return {};
}

}  // namespace

bool encode_solo(const Kernels& k, const SoloModel& model, const Hint& hint, Bytes raw, Buffer& out, std::size_t at) {
    if (model.columns) return encode_columns(k, *model.columns, raw, at, out);
    const unsigned width = hint.width;
    const std::size_t n = raw.size() / width, before = out.size();
    std::uint8_t* planes[8] = {};
    for (unsigned p = 0; p < width; ++p) planes[p] = lane(kLanePlanes + p, n);
    const std::uint8_t* from = data(raw);
    if (hint.big_endian && width > 1) {
        std::uint8_t* own = lane(kLaneBase, n * width);
        std::memcpy(own, from, n * width);
        swap_bytes(own, n, width);
        from = own;
    }
    k.split[log2_of(width)](from, n, is_float(hint), planes);
    const std::size_t zeros = width > 1 ? static_cast<std::size_t>(std::count(planes[0], planes[0] + n, 0)) : 0;
    for (unsigned p = 0; p < width; ++p) {
        const PivotTree* shared = model.planes[p] ? &*model.planes[p] : nullptr;
        if (p > 0 && zeros * kMaskedShare >= n && zero_where(planes[0], planes[p], n)) {
            std::uint8_t* stream = lane(kLaneStream, n);
            out.push_back(static_cast<std::byte>(kPlaneMasked));
            encode_plane(k, nullptr, stream, k.compress(planes[p], planes[0], n, 1, 255, stream), out);
        } else if (p > 0 && model.in_parts && zeros * kMaskedShare >= n) {
            encode_parts(k, planes[0], planes[p], n, out);
        } else {
            encode_plane(k, shared, planes[p], n, out);
        }
    }
    BitWriter(out).put_bytes(data(raw) + n * width, raw.size() - n * width);
    if (out.size() - before < raw.size()) return true;
    out.resize(before);
    return false;
}

Status decode_solo(const Kernels& k, const SoloModel& model, const Hint& hint, Bytes stored, MutableBytes out,
                   std::size_t at) {
    if (model.columns) return decode_columns(k, *model.columns, stored, at, out);
    const unsigned width = hint.width;
    const std::size_t n = out.size() / width;
    BitReader in(stored);
    std::uint8_t* planes[8] = {};
    for (unsigned p = 0; p < width; ++p) {
        planes[p] = lane(kLanePlanes + p, n);
        if (p > 0 && in.bytes_left() > 0 && *in.here() == kPlaneMasked) {
            (void)in.take_bytes(1);
            CORAL_CHECK(decode_masked(k, in, planes[0], n, planes[p]));
        } else if (p > 0 && model.in_parts && in.bytes_left() > 0 && *in.here() == kPlaneParts) {
            (void)in.take_bytes(1);
            CORAL_CHECK(decode_parts(k, in, planes[0], n, planes[p]));
        } else {
            CORAL_CHECK(decode_plane(k, model.planes[p] ? &*model.planes[p] : nullptr, in, n, planes[p]));
        }
        in.align();
    }
    k.join[log2_of(width)](planes, n, is_float(hint), data(out));
    if (hint.big_endian && width > 1) swap_bytes(data(out), n, width);
    const std::uint8_t* tail = in.take_bytes(out.size() - n * width);
    if (!tail || !in.at_end()) return make_error(Errc::kCorrupt, "coded chunk of a wrong length");
    std::memcpy(data(out) + n * width, tail, out.size() - n * width);
    return {};
}

namespace {

// Base values, and for each element its class's key, as DeltaModel::last has them.
PreparedBase classified(const Kernels& k, const DeltaModel& model, const Hint& hint, const DeltaBase& base,
                        std::size_t n) {
    PreparedBase prepared = prepare_base(k, model, hint, base, n);
    if (!model.step) return prepared;
    std::uint8_t* classes = lane(kLaneKey, n);
    k.remap(prepared.keys, n, model.step->class_of.data(), classes);
    return {prepared.values, classes};
}

}  // namespace

bool encode_delta(const Kernels& k, const DeltaModel& model, const Hint& hint, Bytes raw, const DeltaBase& base,
                  Buffer& out) {
    const unsigned width = hint.width;
    const std::size_t n = raw.size() / width, before = out.size();
    const auto [from, keys] = classified(k, model, hint, base, n);
    const std::uint8_t* values = data(raw);
    if (hint.big_endian && width > 1) {
        std::uint8_t* own = lane(kLanePlanes, n * width);
        std::memcpy(own, values, n * width);
        swap_bytes(own, n, width);
        values = own;
    }
    std::uint8_t* stream = lane(kLaneStream, n);
    DeltaArrays arrays = arrays_of(model.extra_bytes, n);
    k.to_delta[log2_of(width)](values, from, n, is_float(hint), model.buckets, arrays);
    {
        BitWriter bits(out);
        for (std::size_t c = 0; c < model.classes.size(); ++c) {
            std::size_t some = k.compress(arrays.symbol, keys, n, class_first(model, c), model.last[c], stream);
            model.classes[c].encode(k, stream, some, bits);
        }
        std::uint8_t* count = lane(kLaneCount, n);
        k.remap(arrays.symbol, n, model.count.data(), count);
        for (unsigned j = 0; j < model.extra_bytes; ++j) {
            auto from_count = static_cast<std::uint8_t>(8 * (j + 1));
            bits.put_bytes(stream, k.compress(arrays.extra[j], count, n, from_count, 255, stream));
        }
        for (unsigned bit = 0; bit < 7; ++bit) bits.put(stream, k.pack_plane(arrays.part, count, n, bit, stream));
        bits.put_bytes(data(raw) + n * width, raw.size() - n * width);
    }
    if (out.size() - before < raw.size()) return true;
    out.resize(before);
    return false;
}

Status decode_delta(const Kernels& k, const DeltaModel& model, const Hint& hint, Bytes stored, const DeltaBase& base,
                    MutableBytes out) {
    const unsigned width = hint.width;
    const std::size_t n = out.size() / width;
    BitReader in(stored);
    const auto [from, keys] = classified(k, model, hint, base, n);
    std::uint8_t* stream = lane(kLaneStream, n);
    DeltaArrays arrays = arrays_of(model.extra_bytes, n);
    for (std::size_t c = 0; c < model.classes.size(); ++c) {
        std::uint8_t first = class_first(model, c);
        // How many: the keys alone tell.
        std::size_t some = k.in_range(keys, n, first, model.last[c]);
        if (some == 0) continue;
        CORAL_CHECK(model.classes[c].decode(k, in, some, stream));
        k.expand(stream, some, keys, n, first, model.last[c], arrays.symbol);
    }
    std::uint8_t* count = lane(kLaneCount, n);
    std::uint8_t* lead = lane(kLaneLead, n);
    k.remap(arrays.symbol, n, model.count.data(), count);
    k.remap(arrays.symbol, n, model.lead.data(), lead);
    for (unsigned j = 0; j < model.extra_bytes; ++j) {
        in.align();
        std::memset(arrays.extra[j], 0, n);
        auto from_count = static_cast<std::uint8_t>(8 * (j + 1));
        std::size_t used = k.expand(in.here(), in.bytes_left(), count, n, from_count, 255, arrays.extra[j]);
        if (!in.take_bytes(used)) return cut_off();
    }
    std::memset(arrays.part, 0, n);
    for (unsigned bit = 0; bit < 7; ++bit) {
        const std::size_t bits = k.plane_size(count, n, bit);
        if (bits == 0) break;
        if (!in.take(bits, stream)) return cut_off();
        k.unpack_plane(stream, (bits + 7) / 8, count, n, bit, arrays.part);
    }
    k.from_delta[log2_of(width)](arrays, lead, count, from, n, is_float(hint), data(out));
    if (hint.big_endian && width > 1) swap_bytes(data(out), n, width);
    const std::uint8_t* tail = in.take_bytes(out.size() - n * width);
    if (!tail || !in.at_end()) return make_error(Errc::kCorrupt, "coded chunk of a wrong length");
    std::memcpy(data(out) + n * width, tail, out.size() - n * width);
    return {};
}

bool encode_palette(const Kernels& k, const PaletteModel& model, const Hint& hint, Bytes raw, Buffer& out) {
    const std::size_t n = raw.size() / hint.width, before = out.size();
    std::uint8_t* numbers = lane(kLaneSymbol, n);
    palette_numbers(model, hint.width, data(raw), n, numbers);
    encode_plane(k, &*model.tree, numbers, n, out);
    BitWriter(out).put_bytes(data(raw) + n * hint.width, raw.size() - n * hint.width);
    if (out.size() - before < raw.size()) return true;
    out.resize(before);
    return false;
}

Status decode_palette(const Kernels& k, const PaletteModel& model, const Hint& hint, Bytes stored, MutableBytes out) {
    const std::size_t n = out.size() / hint.width;
    BitReader in(stored);
    std::uint8_t* numbers = lane(kLaneSymbol, n);
    CORAL_CHECK(decode_plane(k, &*model.tree, in, n, numbers));
    in.align();
    // Numbers beyond the palette mean zero: a chunk with such is no chunk of ours, and its checksum tells.
    std::array<std::uint64_t, 256> values{};
    std::copy(model.values.begin(), model.values.end(), values.begin());
    k.lookup[log2_of(hint.width)](numbers, n, values.data(), data(out));
    const std::uint8_t* tail = in.take_bytes(out.size() - n * hint.width);
    if (!tail || !in.at_end()) return make_error(Errc::kCorrupt, "coded chunk of a wrong length");
    std::memcpy(data(out) + n * hint.width, tail, out.size() - n * hint.width);
    return {};
}

}  // namespace coral::codec
