// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "coral/store/store.hpp"

namespace coral::store {
namespace {

constexpr std::size_t kManyFresh = 1u << 18;

}  // namespace

bool LiveSet::contains(Kind kind, const AnyId& id) const {
    auto found = kinds_.find(kind);
    if (found == kinds_.end()) return false;
    const OfKind& of = found->second;
    return of.fresh.contains(id) || std::binary_search(of.sorted.begin(), of.sorted.end(), id);
}

bool LiveSet::add(Kind kind, const AnyId& id) {
    OfKind& of = kinds_[kind];
    if (std::binary_search(of.sorted.begin(), of.sorted.end(), id) || !of.fresh.insert(id).second) return false;
    // Seldom enough that all the merging costs about as much as one sort.
    if (of.fresh.size() >= kManyFresh + of.sorted.size() / 8) {
        auto middle = static_cast<std::ptrdiff_t>(of.sorted.size());
        of.sorted.insert(of.sorted.end(), of.fresh.begin(), of.fresh.end());
        of.fresh.clear();
        std::sort(of.sorted.begin() + middle, of.sorted.end());
        std::inplace_merge(of.sorted.begin(), of.sorted.begin() + middle, of.sorted.end());
    }
    if (late_) {
        late_ids_.insert({kind, id});
        late_list_.emplace_back(kind, id);
    }
    return true;
}

std::uint64_t LiveSet::size() const {
    std::uint64_t count = 0;
    for (const auto& [kind, of] : kinds_) count += of.sorted.size() + of.fresh.size();
    return count;
}

std::vector<std::pair<Kind, AnyId>> LiveSet::take_late() {
    return std::exchange(late_list_, {});
}

}  // namespace coral::store
