// SPDX-License-Identifier: Apache-2.0
#include "formats/source_reader.hpp"

#include <algorithm>

namespace coral::formats {

namespace {

constexpr std::uint64_t kWindow = 64 * 1024;

}  // namespace

bool SourceReader::fill() {
    if (error_ || next_ == end_) return false;
    window_.resize(static_cast<std::size_t>(std::min(kWindow, end_ - next_)));
    at_ = 0;
    if (Status status = source_.read_at(next_, window_); !status) {
        error_ = status.error();
        window_.clear();
        return false;
    }
    next_ += window_.size();
    return true;
}

bool SourceReader::read(MutableBytes out) {
    if (out.size() > left()) return false;
    while (!out.empty()) {
        if (at_ == window_.size() && !fill()) return false;
        std::size_t n = std::min(out.size(), window_.size() - at_);
        std::copy_n(window_.begin() + static_cast<std::ptrdiff_t>(at_), n, out.begin());
        at_ += n;
        out = out.subspan(n);
    }
    return true;
}

bool SourceReader::skip(std::uint64_t n) {
    if (n > left()) return false;
    std::uint64_t here = std::min<std::uint64_t>(n, window_.size() - at_);
    at_ += static_cast<std::size_t>(here);
    next_ += n - here;
    if (n > here) {
        window_.clear();
        at_ = 0;
    }
    return true;
}

}  // namespace coral::formats
