// SPDX-License-Identifier: Apache-2.0
// Logging for the daemon and the library: spdlog behind four functions. Never called with a lock held.
#pragma once

#include <fmt/format.h>

#include <string>
#include <utility>

namespace coral {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

void log_message(LogLevel level, const std::string& message);
// To a file (size-limited, one old file kept) or, with an empty path, to stderr. Level from CORAL_LOG (debug, info,
// warn, error), default info for a file and warn for stderr.
void log_setup(const std::string& path);

template <class... Args>
void log_debug(fmt::format_string<Args...> f, Args&&... args) {
    log_message(LogLevel::kDebug, fmt::format(f, std::forward<Args>(args)...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> f, Args&&... args) {
    log_message(LogLevel::kInfo, fmt::format(f, std::forward<Args>(args)...));
}
template <class... Args>
void log_warn(fmt::format_string<Args...> f, Args&&... args) {
    log_message(LogLevel::kWarn, fmt::format(f, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> f, Args&&... args) {
    log_message(LogLevel::kError, fmt::format(f, std::forward<Args>(args)...));
}

}  // namespace coral
