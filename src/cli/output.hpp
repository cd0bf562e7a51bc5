// SPDX-License-Identifier: Apache-2.0
// Where results go: stdout, coloured when that is wanted; warnings go to stderr.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

#include "coral/base/ids.hpp"
#include "coral/base/result.hpp"

namespace coral::cli {

enum class ColorWhen { kAuto, kAlways, kNever };
enum class Color { kNone, kRed, kGreen, kYellow, kCyan, kBold, kDim };

class Output {
  public:
    // kAuto: a terminal, unless NO_COLOR is set or TERM is dumb; CLICOLOR_FORCE and FORCE_COLOR want it anywhere.
    void set_color(ColorWhen when);

    void write(Bytes bytes);
    void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }
    template <class... Args>
    void print(fmt::format_string<Args...> f, Args&&... args) {
        write(fmt::format(f, std::forward<Args>(args)...));
    }
    std::string paint(Color color, std::string_view text) const;

    // "coral: warning: …" on stderr, after what was printed so far.
    void warn(std::string_view text);

    bool failed() const { return error_ != 0; }
    // Everything is with the system, or the error of stdout. Call once, at the end.
    Status finish();
    // stdout is a pipe that nobody reads: end without a word.
    bool broken_pipe() const;

  private:
    bool color_ = false;
    int error_ = 0;
};

void print_error(std::string_view text);  // "coral: error: …", one line

}  // namespace coral::cli
