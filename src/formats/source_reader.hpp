// SPDX-License-Identifier: Apache-2.0
// Reads a range of a source front to back through a small window. Each byte is fetched once, so nothing changes after
// it was checked, and a lie about a length allocates nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "coral/formats/layout.hpp"

namespace coral::formats {

class SourceReader {
  public:
    static constexpr int kEnd = -1;

    // The range must lie inside the source.
    SourceReader(const ByteSource& source, std::uint64_t begin, std::uint64_t end)
        : source_(source), next_(begin), end_(end) {}

    // The next byte, or kEnd at the end of the range or once the source failed.
    int get() { return at_ < window_.size() || fill() ? static_cast<int>(window_[at_++]) : kEnd; }
    int peek() { return at_ < window_.size() || fill() ? static_cast<int>(window_[at_]) : kEnd; }
    // Exactly out.size() bytes. False when there are fewer; then some of them may have been taken.
    bool read(MutableBytes out);
    bool skip(std::uint64_t n);
    std::uint64_t left() const { return error_ ? 0 : end_ - next_ + (window_.size() - at_); }

    // The source's error, if it failed: it matters more than what was made of the bytes before it.
    const std::optional<Error>& error() const { return error_; }

  private:
    bool fill();

    const ByteSource& source_;
    std::uint64_t next_;  // file offset behind the window
    std::uint64_t end_;
    std::vector<std::byte> window_;
    std::size_t at_ = 0;
    std::optional<Error> error_;
};

}  // namespace coral::formats
