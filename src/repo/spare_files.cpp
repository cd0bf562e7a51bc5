// SPDX-License-Identifier: Apache-2.0
#include "repo/spare_files.hpp"

#include <algorithm>
#include <utility>

namespace coral::repo {

void SpareFiles::turn(std::int64_t now_ns) {
    if (now_ns - window_ns_ < kWindow) return;
    needed_before_ = now_ns - window_ns_ < 2 * kWindow ? needed_ : 0;
    needed_ = 0;
    window_ns_ = now_ns;
}

std::size_t SpareFiles::worth_keeping() const {
    std::size_t needed = needed_ + needed_before_;
    return closed_ || needed < kLeast ? 0 : std::min(needed, kMost);
}

std::optional<Uuid> SpareFiles::take(std::int64_t now_ns) {
    std::lock_guard lock(mutex_);
    turn(now_ns);
    ++needed_;
    if (spare_.empty()) return std::nullopt;
    Uuid uuid = spare_.back();
    spare_.pop_back();
    return uuid;
}

bool SpareFiles::wants(std::int64_t now_ns) {
    std::lock_guard lock(mutex_);
    turn(now_ns);
    return spare_.size() < worth_keeping();
}

void SpareFiles::put(const Uuid& uuid) {
    std::lock_guard lock(mutex_);
    spare_.push_back(uuid);
}

std::vector<Uuid> SpareFiles::excess(std::int64_t now_ns) {
    std::lock_guard lock(mutex_);
    turn(now_ns);
    std::size_t kept = std::min(spare_.size(), worth_keeping());
    std::vector<Uuid> gone(spare_.begin() + static_cast<std::ptrdiff_t>(kept), spare_.end());
    spare_.resize(kept);
    return gone;
}

std::vector<Uuid> SpareFiles::close() {
    std::lock_guard lock(mutex_);
    closed_ = true;
    return std::exchange(spare_, {});
}

}  // namespace coral::repo
