// SPDX-License-Identifier: Apache-2.0
#include "cli/progress.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "cli/system.hpp"
#include "cli/text.hpp"
#include "coral/base/os.hpp"

namespace coral::cli {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kFirstDraw = kSecond / 3;
constexpr std::int64_t kBetweenDraws = kSecond / 10;
constexpr std::int64_t kBetweenMeasures = kSecond / 4;
constexpr double kSmoothing = 0.25;  // weight of the newest quarter of a second
constexpr std::uint64_t kLongestEta = 100 * 3600;

bool wanted() {
    return is_terminal(Stream::kError) && environment("TERM") != "dumb";
}

std::string bar(double fraction, std::size_t cells) {
    // Eighths of a cell: a bar of 20 cells moves 160 times.
    static constexpr const char* kParts[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    auto eighths = static_cast<std::size_t>(fraction * static_cast<double>(cells * 8));
    std::string out;
    for (std::size_t i = 0; i < eighths / 8; ++i) out += "█";
    std::size_t used = eighths / 8;
    if (eighths % 8 != 0) {
        out += kParts[eighths % 8];
        ++used;
    }
    return out + std::string(cells - std::min(used, cells), ' ');
}

}  // namespace

Progress::Progress(std::string label, Unit unit)
    : label_(std::move(label)),
      unit_(unit),
      enabled_(wanted()),
      started_(monotonic_ns()),
      last_draw_(started_),
      last_measure_(started_) {}

Progress::~Progress() {
    clear();
}

void Progress::update(std::uint64_t done, std::uint64_t total) {
    if (!enabled_) return;
    std::lock_guard lock(mutex_);
    std::int64_t now = monotonic_ns();
    measure(done, now);
    std::int64_t since = now - last_draw_;
    if (drawn_ ? since < kBetweenDraws : since < kFirstDraw) return;
    draw(done, total, now);
}

void Progress::measure(std::uint64_t done, std::int64_t now) {
    std::int64_t span = now - last_measure_;
    if (span < kBetweenMeasures) return;
    double newest = static_cast<double>(done > measured_ ? done - measured_ : 0) * static_cast<double>(kSecond) /
                    static_cast<double>(span);
    bool first = last_measure_ == started_;
    rate_ = first ? newest : rate_ + kSmoothing * (newest - rate_);
    measured_ = done;
    last_measure_ = now;
}

void Progress::draw(std::uint64_t done, std::uint64_t total, std::int64_t now) {
    std::string text = "\r\x1b[K" + line(std::min(done, std::max(total, done)), total, terminal_width());
    std::fwrite(text.data(), 1, text.size(), stderr);
    std::fflush(stderr);
    drawn_ = true;
    last_draw_ = now;
}

std::string Progress::line(std::uint64_t done, std::uint64_t total, std::size_t width) const {
    auto amount = [&](std::uint64_t n) { return unit_ == Unit::kBytes ? size_text(n) : fmt::format("{}", n); };
    double fraction = total ? std::min(1.0, static_cast<double>(done) / static_cast<double>(total)) : 0;
    std::string figures =
        total ? fmt::format("{:3.0f}%  {} of {}", fraction * 100, amount(done), amount(total)) : amount(done);
    if (rate_ >= 1) {
        figures += fmt::format("  {}/s", amount(static_cast<std::uint64_t>(rate_)));
        auto left = total > done ? static_cast<std::uint64_t>(static_cast<double>(total - done) / rate_) : 0;
        if (left > 0 && left < kLongestEta) figures += fmt::format("  {} to go", duration_text(left));
    }
    std::size_t used = display_width(label_) + display_width(figures) + 4;
    if (!total || width < used + 8) return fmt::format("{}  {}", label_, figures).substr(0, width - 1);
    return fmt::format("{} {} {}", label_, bar(fraction, std::min<std::size_t>(width - used, 30)), figures);
}

void Progress::clear() {
    std::lock_guard lock(mutex_);
    if (!drawn_) return;
    std::fputs("\r\x1b[K", stderr);
    std::fflush(stderr);
    drawn_ = false;
    last_draw_ = monotonic_ns();
}

std::function<void(std::uint64_t, std::uint64_t)> Progress::callback() {
    return [this](std::uint64_t done, std::uint64_t total) { update(done, total); };
}

}  // namespace coral::cli
