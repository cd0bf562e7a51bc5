// SPDX-License-Identifier: Apache-2.0
#include "coral/base/log.hpp"

#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <memory>

namespace coral {
namespace {

constexpr std::size_t kLogBytes = 8u << 20;

spdlog::level::level_enum wanted_level(spdlog::level::level_enum otherwise) {
    const char* text = std::getenv("CORAL_LOG");
    if (!text || !*text) return otherwise;
    spdlog::level::level_enum level = spdlog::level::from_str(text);
    return level == spdlog::level::off ? otherwise : level;
}

std::shared_ptr<spdlog::logger>& logger() {
    static std::shared_ptr<spdlog::logger> it = [] {
        auto made = std::make_shared<spdlog::logger>("coral", std::make_shared<spdlog::sinks::stderr_sink_mt>());
        made->set_level(wanted_level(spdlog::level::warn));
        made->set_pattern("coral: %l: %v");
        return made;
    }();
    return it;
}

}  // namespace

void log_setup(const std::string& path) {
    if (path.empty()) {
        logger();
        return;
    }
    std::shared_ptr<spdlog::sinks::sink> sink;
    try {
        sink = std::make_shared<spdlog::sinks::rotating_file_sink_mt>(path, kLogBytes, 1);
    } catch (const spdlog::spdlog_ex&) {
        logger();  // a repository on read-only media has no place for a log
        return;
    }
    auto made = std::make_shared<spdlog::logger>("coral", sink);
    made->set_level(wanted_level(spdlog::level::info));
    made->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %P %l %v");
    made->flush_on(spdlog::level::info);
    logger() = made;
}

void log_message(LogLevel level, const std::string& message) {
    static constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::debug, spdlog::level::info,
                                                            spdlog::level::warn, spdlog::level::err};
    logger()->log(kLevels[static_cast<int>(level)], message);
}

}  // namespace coral
