// SPDX-License-Identifier: Apache-2.0
#include "repo/anchors.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace coral::repo {
namespace {

constexpr std::uint64_t kOdd = 0x9e3779b97f4a7c15u;
constexpr unsigned kFilterLog2 = 20;
constexpr std::size_t kFewest = 12;  // different bytes of 32: weights have more, padding and tables of zeros fewer

std::uint64_t load(const std::byte* p) {
    std::uint64_t v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

// The upper half from the first 8 bytes alone: enough to pass over nearly every place.
std::uint64_t upper(const std::byte* p) {
    return (load(p) ^ (load(p) >> 29)) * kOdd >> 32 << 32;
}

std::uint64_t anchor_at(const std::byte* p) {
    std::uint64_t h = load(p + 8) * kOdd;
    h = (h ^ (h >> 31) ^ load(p + 16)) * kOdd;
    h = (h ^ (h >> 31) ^ load(p + 24)) * kOdd;
    return upper(p) | (h >> 32) | 1u;
}

bool plain(const std::byte* p) {
    std::array<bool, 256> seen{};
    std::size_t different = 0;
    for (std::size_t i = 0; i < kAnchorBytes; ++i) {
        bool& there = seen[std::to_integer<std::size_t>(p[i])];
        different += !there;
        there = true;
    }
    return different < kFewest;
}

std::size_t filter_bit(std::uint64_t anchor) {
    return static_cast<std::size_t>(anchor >> (64 - kFilterLog2));
}

}  // namespace

std::vector<std::uint64_t> anchors_of(Bytes raw) {
    std::vector<std::uint64_t> out;
    for (std::size_t at = 0; at + kAnchorBytes <= raw.size(); at += kAnchorEvery) {
        out.push_back(plain(raw.data() + at) ? 0 : anchor_at(raw.data() + at));
    }
    return out;
}

void AnchorTable::clear() {
    segments_.clear();
    slots_.clear();
    filter_.clear();
    used_ = 0;
}

const AnchorTable::Slot* AnchorTable::look_up(std::uint64_t anchor) const {
    const std::size_t mask = slots_.size() - 1;
    for (std::size_t i = static_cast<std::size_t>(anchor * kOdd >> 20) & mask;; i = (i + 1) & mask) {
        if (slots_[i].anchor == anchor || slots_[i].anchor == 0) return &slots_[i];
    }
}

void AnchorTable::put(const Slot& slot) {
    auto* place = const_cast<Slot*>(look_up(slot.anchor));
    used_ += place->anchor == 0;
    *place = slot;
}

void AnchorTable::grow() {
    std::vector<Slot> old(std::max<std::size_t>(1024, 2 * slots_.size()));
    old.swap(slots_);
    used_ = 0;
    for (const Slot& slot : old) {
        if (slot.anchor != 0) put(slot);
    }
}

void AnchorTable::add(const Segment& segment, const std::vector<std::uint64_t>& anchors) {
    // A segment that nothing points to only takes room.
    if (std::all_of(anchors.begin(), anchors.end(), [](std::uint64_t anchor) { return anchor == 0; })) return;
    if (used_ + anchors.size() > kMost || segments_.size() >= kMostSegments) clear();
    if (filter_.empty()) filter_.resize((std::size_t{1} << kFilterLog2) / 64);
    while (slots_.empty() || 2 * (used_ + anchors.size()) > slots_.size()) grow();
    segments_.push_back(segment);
    for (std::size_t i = 0; i < anchors.size(); ++i) {
        if (anchors[i] == 0) continue;
        put({anchors[i], static_cast<std::uint32_t>(segments_.size() - 1), static_cast<std::uint32_t>(i)});
        filter_[filter_bit(anchors[i]) / 64] |= std::uint64_t{1} << (filter_bit(anchors[i]) % 64);
    }
}

std::optional<AnchorTable::Place> AnchorTable::find(Bytes bytes, std::size_t from, std::size_t step) const {
    if (empty()) return std::nullopt;
    for (std::size_t at = from; at + kAnchorBytes <= bytes.size(); at += step) {
        const std::byte* p = bytes.data() + at;
        const std::size_t bit = filter_bit(upper(p));
        if ((filter_[bit / 64] >> (bit % 64) & 1) == 0) continue;
        const Slot* slot = look_up(anchor_at(p));
        if (slot->anchor == 0) continue;
        return Place{at, {segments_[slot->segment], std::uint64_t{slot->number} * kAnchorEvery}};
    }
    return std::nullopt;
}

}  // namespace coral::repo
