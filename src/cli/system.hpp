// SPDX-License-Identifier: Apache-2.0
// The few things that the command line asks of the operating system itself: terminals, programs, extended attributes,
// mounts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "coral/base/result.hpp"

namespace coral::cli {

enum class Stream { kIn = 0, kOut = 1, kError = 2 };
bool is_terminal(Stream stream);
std::size_t terminal_width();               // of stderr; 80 when unknown
std::string environment(const char* name);  // "" when it is not set

Result<std::string> current_dir();  // kStale when it was removed
Status change_dir(const std::string& dir);
std::string own_program();  // path of this very program

// Value of an extended attribute; nothing when there is none. Errors: kNotFound, kIo "… is not connected" (a dead
// mount).
Result<std::optional<std::string>> get_xattr(const std::string& path, const char* name);

// Does not return when it succeeds. kNotFound: there is no such program.
Error exec_program(const std::string& path, const std::vector<std::string>& arguments);
// Its exit code; 128 + n after signal n. Streams are inherited.
Result<int> run_program(const std::string& path, const std::vector<std::string>& arguments);
// A program in PATH; empty when there is none.
std::string find_program(const std::string& name);

struct Mount {
    std::string point, type, source;
};
Result<std::vector<Mount>> mounts();                  // in mount order
Status unmount(const std::string& point, bool lazy);  // umount(2): root only
bool process_alive(std::uint32_t pid);                // and no zombie

}  // namespace coral::cli
