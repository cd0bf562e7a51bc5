// SPDX-License-Identifier: Apache-2.0
#include "cli/output.hpp"

#include <cerrno>
#include <cstdio>

#include "cli/system.hpp"
#include "cli/text.hpp"

namespace coral::cli {
namespace {

const char* code_of(Color color) {
    switch (color) {
        case Color::kRed:
            return "31";
        case Color::kGreen:
            return "32";
        case Color::kYellow:
            return "33";
        case Color::kCyan:
            return "36";
        case Color::kBold:
            return "1";
        case Color::kDim:
            return "2";
        case Color::kNone:
            break;
    }
    return "0";
}

bool color_by_environment() {
    if (!environment("NO_COLOR").empty()) return false;
    for (const char* name : {"CLICOLOR_FORCE", "FORCE_COLOR"}) {
        std::string value = environment(name);
        if (!value.empty() && value != "0") return true;
    }
    return is_terminal(Stream::kOut) && environment("TERM") != "dumb";
}

// Messages hold names that strangers chose; a line stays a line.
std::string one_line(std::string_view text) {
    std::string out = shown_text(text);
    for (char& c : out) {
        if (c == '\n' || c == '\t') c = ' ';
    }
    return out;
}

void to_stderr(std::string_view kind, std::string_view text) {
    std::string line = fmt::format("coral: {}: {}\n", kind, one_line(text));
    std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace

void Output::set_color(ColorWhen when) {
    color_ = when == ColorWhen::kAlways || (when == ColorWhen::kAuto && color_by_environment());
}

void Output::write(Bytes bytes) {
    if (error_ || bytes.empty()) return;
    if (std::fwrite(bytes.data(), 1, bytes.size(), stdout) != bytes.size()) error_ = errno;
}

std::string Output::paint(Color color, std::string_view text) const {
    if (!color_ || color == Color::kNone || text.empty()) return std::string(text);
    return fmt::format("\x1b[{}m{}\x1b[m", code_of(color), text);
}

void Output::warn(std::string_view text) {
    std::fflush(stdout);
    to_stderr("warning", text);
}

Status Output::finish() {
    if (!error_ && (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)) error_ = errno ? errno : EIO;
    if (error_) return errno_error(error_, "cannot write to standard output");
    return {};
}

bool Output::broken_pipe() const {
    return error_ == EPIPE;
}

void print_error(std::string_view text) {
    to_stderr("error", text);
}

}  // namespace coral::cli
