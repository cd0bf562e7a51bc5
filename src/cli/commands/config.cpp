// SPDX-License-Identifier: Apache-2.0
#include "coral/repo/settings.hpp"

#include <fmt/format.h>

#include "cli/command.hpp"
#include "cli/json.hpp"
#include "cli/text.hpp"
#include "coral/base/os.hpp"

namespace coral::cli {
namespace {

// What is set, where. Works outside a repository as well: then only the user's own settings count.
struct Sources {
    std::string global_path, repo_path;  // repo_path empty: no repository here
    repo::Settings global, repo;
    repo::Settings merged;
};

Result<Sources> read_sources(Context& context) {
    Sources sources;
    sources.global_path = repo::global_config_path();
    CORAL_TRY(sources.global, repo::read_settings(real_os(), sources.global_path));
    bool only_global = context.arguments.has("global");
    sources.merged = sources.global;
    if (only_global) return sources;
    auto place = context.place();
    if (!place) {
        // Outside a repository one may look at the list and at single settings; something must be there to look at.
        if (sources.global.empty()) return std::move(place).error();
        return sources;
    }
    sources.repo_path = repo::repo_config_path((*place)->repository);
    CORAL_TRY(sources.repo, repo::read_settings(real_os(), sources.repo_path));
    CORAL_TRY(sources.merged, repo::merged_settings(real_os(), (*place)->repository));
    return sources;
}

const std::string& origin_of(const Sources& sources, const std::string& key) {
    return repo::find_setting(sources.repo, key) ? sources.repo_path : sources.global_path;
}

Result<int> list(Context& context) {
    CORAL_TRY(Sources sources, read_sources(context));
    bool origin = context.arguments.has("show-origin");
    if (context.json()) {
        Json document = json_document("config");
        document["values"] = Json::object();
        for (const auto& [key, value] : sources.merged) put_text(document["values"], key, value);
        if (origin) {
            document["origins"] = Json::object();
            for (const auto& [key, value] : sources.merged) put_text(document["origins"], key, origin_of(sources, key));
        }
        print_json(context.out, document);
        return kOk;
    }
    for (const auto& [key, value] : sources.merged) {
        if (origin) context.out.print("{}\t", quote_name(origin_of(sources, key)));
        context.out.print("{}={}\n", key, shown_text(value));
    }
    return kOk;
}

Result<int> get(Context& context, const std::string& key) {
    CORAL_TRY(Sources sources, read_sources(context));
    auto value = repo::find_setting(sources.merged, key);
    if (!value) return kNo;  // as git: no word, so that scripts can ask
    if (context.json()) {
        Json document = json_document("config");
        document["key"] = key;
        put_text(document, "value", *value);
        put_text(document, "origin", origin_of(sources, key));
        print_json(context.out, document);
        return kOk;
    }
    if (context.arguments.has("show-origin")) context.out.print("{}\t", quote_name(origin_of(sources, key)));
    context.out.print("{}\n", *value);
    return kOk;
}

// The user's own file needs no repository.
Status change_global(const std::string& key, const std::optional<std::string>& value) {
    std::string path = repo::global_config_path();
    std::vector<std::string> missing;
    for (std::string dir = path_parent(path); !real_os().exists(dir); dir = path_parent(dir)) missing.push_back(dir);
    for (; !missing.empty(); missing.pop_back()) {
        auto made = real_os().make_dir(missing.back(), 0700);
        if (!made && made.error().code != Errc::kExists) return made;
    }
    CORAL_TRY(path, absolute_path(path));  // a link to a file elsewhere stays one
    auto text = read_file(real_os(), path);
    if (!text && text.error().code != Errc::kNotFound) return std::move(text).error();
    CORAL_TRY(std::string edited, repo::edit_settings(text ? *text : std::string(), key, value, path));
    return write_file_atomic(real_os(), path, as_bytes(edited));
}

Status change(Context& context, const std::string& key, const std::optional<std::string>& value) {
    if (context.arguments.has("global")) return change_global(key, value);
    CORAL_TRY(repo::Repository * repository, context.repository());
    return repository->set_config(key, value, false);
}

Result<int> run(Context& context) {
    const Arguments& a = context.arguments;
    std::size_t count = a.operands().size();
    if (a.has("unset")) {
        if (count != 1) return context.usage("config: --unset takes one KEY");
        CORAL_CHECK(change(context, a.operands()[0], std::nullopt));
        return kOk;
    }
    if (a.has("list")) return count == 0 ? list(context) : context.usage("config: --list takes no operands");
    if (count == 0) return list(context);
    if (count == 1) return get(context, a.operands()[0]);
    CORAL_CHECK(change(context, a.operands()[0], a.operands()[1]));
    return kOk;
}

}  // namespace

const Command& config_command() {
    static const Command command{
        "config",
        "Looking after a repository",
        "read and set options",
        "config [--list] [--global] [--show-origin] [--json]\nconfig [--global] KEY [VALUE]\nconfig [--global] --unset "
        "KEY",
        "Options are in coral.toml of the repository, over those in ~/.config/coral/config.toml\n"
        "(--global). KEY is SECTION.NAME. Asking for a KEY that is not set gives exit code 1.",
        "coral config user.name \"Ada Lovelace\"\n"
        "coral config --global user.email ada@example.org\n"
        "coral config store.cache_mib 2048",
        {{0, "global", nullptr, "your own file, for all repositories"},
         {0, "unset", nullptr, "remove KEY"},
         {'l', "list", nullptr, "all that is set, as without operands"},
         {0, "show-origin", nullptr, "tell which file says so"},
         kJsonOption},
        0,
        2,
        run,
    };
    return command;
}

}  // namespace coral::cli
