// SPDX-License-Identifier: Apache-2.0
// A progress bar on stderr with rate and time to go; nothing at all unless stderr is a terminal.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>

namespace coral::cli {

class Progress {
  public:
    enum class Unit { kBytes, kItems };
    // Appears after a moment, so that quick commands stay quiet.
    Progress(std::string label, Unit unit);
    ~Progress();  // clears the line
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

    void update(std::uint64_t done, std::uint64_t total);  // thread-safe; draws at most ten times a second
    void clear();
    bool enabled() const { return enabled_; }
    std::function<void(std::uint64_t, std::uint64_t)> callback();

  private:
    void draw(std::uint64_t done, std::uint64_t total, std::int64_t now);
    void measure(std::uint64_t done, std::int64_t now);
    std::string line(std::uint64_t done, std::uint64_t total, std::size_t width) const;

    std::mutex mutex_;  // guards all below
    std::string label_;
    Unit unit_;
    bool enabled_;
    bool drawn_ = false;
    std::int64_t started_, last_draw_, last_measure_;
    std::uint64_t measured_ = 0;
    double rate_ = 0;  // per second, smoothed
};

}  // namespace coral::cli
