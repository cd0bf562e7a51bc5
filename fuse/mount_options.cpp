// SPDX-License-Identifier: Apache-2.0
#include "mount_options.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <map>

namespace coral::fuse {

namespace {

using Setter = Status (*)(MountOptions&, std::string_view);

// What fstab and mount(8) add and what means nothing to us: set-uid programs and devices are off whatever they say.
constexpr std::string_view kIgnored[] = {
    "rw",     "defaults", "auto",       "noauto",      "user",     "users",      "owner", "group",
    "nouser", "_netdev",  "nofail",     "nosuid",      "nodev",    "suid",       "dev",   "exec",
    "atime",  "relatime", "norelatime", "strictatime", "diratime", "nodiratime", "async", "default_permissions",
    "loud",
};
constexpr std::string_view kKernel[] = {"noexec", "noatime", "sync", "dirsync"};

Error needs_value(std::string_view name, std::string_view example) {
    return make_error(Errc::kInvalid, fmt::format("option '{}' wants a value such as {}={}", name, name, example));
}

Result<unsigned> parse_number(std::string_view name, std::string_view text, unsigned lowest, unsigned highest) {
    unsigned value = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < lowest || value > highest)
        return make_error(Errc::kInvalid,
                          fmt::format("option '{}': '{}' is not a number from {} to {}", name, text, lowest, highest));
    return value;
}

Result<std::uint64_t> size_of(std::string_view name, std::string_view text, std::string_view example) {
    if (text.empty()) return needs_value(name, example);
    auto size = parse_size(text);
    if (!size) return std::move(size).error().with(fmt::format("option '{}'", name));
    return size;
}

Status set_memory(MountOptions& o, std::string_view value) {
    CORAL_TRY(std::uint64_t size, size_of("memory", value, "512M"));
    if (size < (32u << 20)) return make_error(Errc::kInvalid, "option 'memory' must be at least 32M");
    o.memory = size;
    return {};
}

Status set_cache_size(MountOptions& o, std::string_view value) {
    CORAL_TRY(o.cache_size, size_of("cache_size", value, "16G"));
    return {};
}

Status set_materialize(MountOptions& o, std::string_view value) {
    using Materialize = vfs::Options::Materialize;
    if (value == "auto") {
        o.materialize = Materialize::kAuto;
    } else if (value == "never") {
        o.materialize = Materialize::kNever;
    } else if (value == "always") {
        o.materialize = Materialize::kAlways;
    } else {
        return needs_value("materialize", "never");
    }
    return {};
}

Status set_readahead(MountOptions& o, std::string_view value) {
    CORAL_TRY(std::uint64_t size, size_of("readahead", value, "16M"));
    o.readahead = size;
    return {};
}

Status set_threads(MountOptions& o, std::string_view value) {
    if (value.empty()) return needs_value("threads", "4");
    CORAL_TRY(unsigned n, parse_number("threads", value, 1, 1024));
    o.threads = n;
    return {};
}

Status set_readahead_kb(MountOptions& o, std::string_view value) {
    if (value.empty()) return needs_value("readahead_kb", "1024");
    CORAL_TRY(unsigned n, parse_number("readahead_kb", value, 0, 65536));
    o.readahead_kb = n;
    return {};
}

Status set_share(MountOptions& o, std::string_view value) {
    if (value != "on" && value != "off") return needs_value("share", "off");
    o.share = value == "on";
    return {};
}

Status set_passthrough(MountOptions& o, std::string_view value) {
    if (value != "auto" && value != "off") return needs_value("passthrough", "off");
    o.passthrough = value == "auto";
    return {};
}

Status set_supervisor(MountOptions& o, std::string_view value) {
    if (value != "auto" && value != "off") return needs_value("supervisor", "off");
    o.supervisor = value == "auto";
    return {};
}

Status set_new_pages(MountOptions& o, std::string_view value) {
    if (value != "drop" && value != "keep") return needs_value("new_pages", "keep");
    o.keep_new_pages = value == "keep";
    return {};
}

Status set_hot_size(MountOptions& o, std::string_view value) {
    CORAL_TRY(o.hot_size, size_of("hot_size", value, "8G"));
    return {};
}

Status set_backlog(MountOptions& o, std::string_view value) {
    CORAL_TRY(o.backlog, size_of("backlog", value, "16G"));
    return {};
}

Status set_fsname(MountOptions& o, std::string_view value) {
    if (value.empty()) return needs_value("fsname", "NAME");
    o.fsname = value;
    return {};
}

template <bool MountOptions::*Flag>
Status set_flag(MountOptions& o, std::string_view) {
    o.*Flag = true;
    return {};
}

const std::map<std::string_view, Setter>& setters() {
    static const std::map<std::string_view, Setter> table = {
        {"ro", set_flag<&MountOptions::read_only>},
        {"allow_other", set_flag<&MountOptions::allow_other>},
        {"allow_root", set_flag<&MountOptions::allow_root>},
        {"auto_unmount", set_flag<&MountOptions::auto_unmount>},
        {"guard", set_flag<&MountOptions::guard>},
        {"nonempty", set_flag<&MountOptions::nonempty>},
        {"debug", set_flag<&MountOptions::debug>},
        {"memory", set_memory},
        {"cache_size", set_cache_size},
        {"materialize", set_materialize},
        {"readahead", set_readahead},
        {"threads", set_threads},
        {"readahead_kb", set_readahead_kb},
        {"share", set_share},
        {"passthrough", set_passthrough},
        {"supervisor", set_supervisor},
        {"hot_size", set_hot_size},
        {"backlog", set_backlog},
        {"new_pages", set_new_pages},
        {"fsname", set_fsname},
        {"subtype", [](MountOptions&, std::string_view) { return Status(); }},
    };
    return table;
}

Status apply_word(MountOptions& options, const std::string& word) {
    auto equals = word.find('=');
    std::string_view name = std::string_view(word).substr(0, equals);
    std::string_view value = equals == std::string::npos ? "" : std::string_view(word).substr(equals + 1);
    if (name == "rw") options.read_only = false;
    if (auto it = setters().find(name); it != setters().end()) return it->second(options, value);
    if (std::ranges::find(kKernel, name) != std::end(kKernel)) {
        options.kernel.emplace_back(name);
        return {};
    }
    bool for_others = name.starts_with("x-") || name.starts_with("X-") || name.starts_with("comment");
    if (for_others || std::ranges::find(kIgnored, name) != std::end(kIgnored)) return {};
    return make_error(Errc::kInvalid, fmt::format("unknown mount option '{}' (see coralfs --help)", word));
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
    std::uint64_t value = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
    if (unit.ends_with("iB")) unit.remove_suffix(2);
    constexpr auto kLargest = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    unsigned shift = 0;
    constexpr std::string_view kUnits = "KMGT";
    bool known = unit.empty();
    if (unit.size() == 1) {
        auto at = kUnits.find(static_cast<char>(unit[0] & ~0x20));
        known = at != std::string_view::npos;
        if (known) shift = 10 * (static_cast<unsigned>(at) + 1);
    }
    if (error != std::errc() || !known || value > kLargest >> shift)
        return make_error(Errc::kInvalid, fmt::format("'{}' is not a size such as 512M or 2G", text));
    return value << shift;
}

Status parse_mount_options(std::string_view words, MountOptions& options) {
    std::string word;
    for (std::size_t i = 0; i <= words.size(); ++i) {
        if (i == words.size() || words[i] == ',') {
            if (!word.empty()) CORAL_CHECK(apply_word(options, word));
            word.clear();
        } else if (words[i] == '\\' && i + 1 < words.size() && (words[i + 1] == ',' || words[i + 1] == '\\')) {
            word += words[++i];
        } else {
            word += words[i];
        }
    }
    return {};
}

std::string escape_option(std::string_view value) {
    std::string out;
    for (char c : value) {
        if (c == ',' || c == '\\') out += '\\';
        out += c;
    }
    return out;
}

std::string source_name(const MountOptions& options, const std::string& repository) {
    return options.fsname.empty() ? repository : options.fsname;
}

std::string fuse_arguments(const MountOptions& options, const std::string& repository) {
    std::string out = "default_permissions,subtype=coral,fsname=" + escape_option(source_name(options, repository));
    if (options.read_only) out += ",ro";
    if (options.allow_other) out += ",allow_other";
    if (options.allow_root) out += ",allow_root";
    if (options.auto_unmount) out += ",auto_unmount";
    for (const std::string& word : options.kernel) out += "," + word;
    return out;
}

}  // namespace coral::fuse
