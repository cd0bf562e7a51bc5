// SPDX-License-Identifier: Apache-2.0
// Settings and who the user is.
#include "coral/repo/settings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <map>

#include "coral/base/bytes.hpp"
#include "coral/repo/repository.hpp"
#include "repo/names.hpp"

namespace coral::repo {
namespace {

std::string environment(const char* name) {
    const char* value = std::getenv(name);
    return value ? value : "";
}

std::string host_name() {
    auto text = read_file(real_os(), "/proc/sys/kernel/hostname", 4096);
    std::string host = text ? text->substr(0, text->find('\n')) : std::string();
    return host.empty() ? "localhost" : host;
}

std::int16_t zone_minutes(std::int64_t time_ns) {
    auto seconds = static_cast<std::time_t>(time_ns / 1'000'000'000);
    std::tm local{};
    if (!::localtime_r(&seconds, &local)) return 0;
    return static_cast<std::int16_t>(std::clamp<long>(local.tm_gmtoff / 60, -24 * 60 + 1, 24 * 60 - 1));
}

// The first that says something.
std::string first_of(std::initializer_list<std::string> texts) {
    for (const std::string& text : texts) {
        if (std::string clean = clean_person_text(text); !clean.empty()) return clean;
    }
    return {};
}

Status make_parent_dirs(Os& os, const std::string& dir) {
    if (os.exists(dir) || dir == "/" || dir == ".") return {};
    CORAL_CHECK(make_parent_dirs(os, path_parent(dir)));
    auto made = os.make_dir(dir, 0700);
    return made || made.error().code == Errc::kExists ? Status() : made;
}

}  // namespace

std::string repo_config_path(const std::string& dir) {
    return path_join(dir, "coral.toml");
}

std::string global_config_path() {
    std::string base = environment("XDG_CONFIG_HOME");
    // The base directory specification: a relative path is to be ignored.
    if (base.empty() || base[0] != '/') base = path_join(home_dir(), ".config");
    return path_join(base, "coral/config.toml");
}

Result<Settings> merged_settings(Os& os, const std::string& dir) {
    CORAL_TRY(Settings global, read_settings(os, global_config_path()));
    CORAL_TRY(Settings local, read_settings(os, repo_config_path(dir)));
    std::map<std::string, std::string> all(local.begin(), local.end());
    all.insert(global.begin(), global.end());  // keeps what is there
    return Settings(all.begin(), all.end());
}

std::optional<std::string> find_setting(const Settings& settings, std::string_view key) {
    for (const auto& [name, value] : settings) {
        if (name == key) return value;
    }
    return std::nullopt;
}

Result<std::optional<std::string>> Repository::config(const std::string& key) {
    CORAL_TRY(Settings all, merged_settings(os_, dir_));
    return find_setting(all, key);
}

Result<std::vector<std::pair<std::string, std::string>>> Repository::all_config() {
    return merged_settings(os_, dir_);
}

Status Repository::set_config(const std::string& key, const std::optional<std::string>& value, bool global) {
    if (!global && read_only_)
        return make_error(Errc::kReadOnly, fmt::format("{}: the repository is open read-only", dir_));
    std::string path = global ? global_config_path() : repo_config_path(dir_);
    std::optional<NamesLock> lock;
    if (global) {
        CORAL_CHECK(make_parent_dirs(os_, path_parent(path)));
        // A link to a file elsewhere stays one: its target is replaced.
        CORAL_TRY(path, absolute_path(path));
    } else {
        CORAL_TRY(lock, NamesLock::take(os_, dir_));
    }
    auto text = read_file(os_, path);
    if (!text && text.error().code != Errc::kNotFound) return std::move(text).error();
    CORAL_TRY(std::string edited, edit_settings(text ? *text : std::string(), key, value, path));
    return write_file_atomic(os_, path, as_bytes(edited));
}

Result<Person> Repository::identity() {
    // A file that does not parse is no reason to lose a commit; whoever asks for a setting is told.
    auto settings = merged_settings(os_, dir_);
    auto setting = [&](std::string_view key) {
        return settings ? find_setting(*settings, key).value_or("") : std::string();
    };
    std::string login = login_name();
    Person person;
    person.name = first_of({environment("CORAL_AUTHOR_NAME"), setting("user.name"), login, "unknown"});
    person.mail = first_of({environment("CORAL_AUTHOR_EMAIL"), setting("user.email"), login + "@" + host_name()});
    person.time_ns = now_ns();
    person.zone_minutes = zone_minutes(person.time_ns);
    return person;
}

}  // namespace coral::repo
