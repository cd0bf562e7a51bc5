// SPDX-License-Identifier: Apache-2.0
#include "control/commands.hpp"

#include <fmt/format.h>

#include <map>

namespace coral::control {

namespace {

constexpr std::size_t kPartBytes = 1u << 20;  // of a line that may have 16 MiB; one change takes at most 13 KiB

using Handler = Result<Answer> (*)(Service&, const Json&, Activity&);

Result<std::shared_ptr<repo::Worktree>> find_worktree(Service& service, const Json& request, Activity& activity) {
    CORAL_TRY(std::string branch, decode([&] { return text_of(request, "branch"); }));
    CORAL_TRY(auto worktree, service.worktree(branch));
    if (!worktree) return make_error(Errc::kNotFound, fmt::format("branch '{}' is not served here", branch));
    activity.watch(worktree);
    return worktree;
}

class Change {
  public:
    explicit Change(Service& service) : service_(service) { service_.begin_change(); }
    ~Change() { service_.end_change(); }
    Change(const Change&) = delete;
    Change& operator=(const Change&) = delete;

  private:
    Service& service_;
};

Result<Answer> do_info(Service& service, const Json&, Activity&) {
    CORAL_TRY(DaemonInfo info, service.info());
    return Answer{{}, to_json(info)};
}

// "Are you the owner of this worktree?" Names of branches may have moved on, so the identity decides.
Result<Answer> do_hello(Service& service, const Json& request, Activity& activity) {
    CORAL_TRY(std::string uuid, decode([&] { return text_of(request, "worktree"); }));
    CORAL_TRY(auto worktree, find_worktree(service, request, activity));
    if (worktree->uuid().text() != uuid) return make_error(Errc::kNotFound, "another worktree has that name here");
    return Answer{};
}

Result<Answer> do_commit(Service& service, const Json& request, Activity& activity) {
    CORAL_TRY(auto options, decode([&] { return commit_options_from(request.at("options")); }));
    CORAL_TRY(auto worktree, find_worktree(service, request, activity));
    options.give_up = [&activity] { return activity.in_vain(); };
    CORAL_TRY(auto result, worktree->commit(options));
    service.settle();
    return Answer{{}, to_json(result)};
}

Result<Answer> do_status(Service& service, const Json& request, Activity& activity) {
    CORAL_TRY(auto worktree, find_worktree(service, request, activity));
    CORAL_TRY(auto status, worktree->status());
    Answer answer;
    std::string part;
    std::size_t items = 0;
    auto flush = [&] {
        if (items) answer.parts.push_back("{\"part\":[" + part + "]}");
        part.clear();
        items = 0;
    };
    for (const repo::Change& change : status.changes) {
        if (items) part += ',';
        part += to_json(change).dump();
        ++items;
        if (part.size() > kPartBytes) flush();
    }
    flush();
    answer.result["branch"] = escape(status.branch);
    if (status.commit) answer.result["commit"] = status.commit->hex();
    return answer;
}

Result<Answer> do_restore(Service& service, const Json& request, Activity& activity) {
    CORAL_TRY(auto paths, decode([&] { return texts_of(request, "paths"); }));
    CORAL_TRY(TreeId source, decode([&] { return id_from<TreeId>(request.at("source")); }));
    CORAL_TRY(auto worktree, find_worktree(service, request, activity));
    Change change(service);
    auto changed = worktree->restore(source, paths);
    service.settle();  // after a failure too: a part may be done
    CORAL_TRY(std::uint64_t count, std::move(changed));
    return Answer{{}, {{"count", count}}};
}

Result<Answer> do_place(Service& service, const Json& request, Activity& activity) {
    CORAL_TRY(auto requests, decode([&] {
                  std::vector<PlaceRequest> out;
                  for (const Json& item : array_of(request, "requests")) out.push_back(place_request_from(item));
                  return out;
              }));
    CORAL_TRY(auto worktree, find_worktree(service, request, activity));
    Change change(service);
    auto placed = place_all(*worktree, requests);
    service.settle();
    CORAL_TRY(std::uint64_t count, std::move(placed));
    CORAL_CHECK(worktree->sync_names());  // what `coral add` has reported must survive, with a daemon and without
    return Answer{{}, {{"count", count}}};
}

Result<Answer> do_wait_ingested(Service& service, const Json& request, Activity& activity) {
    CORAL_TRY(auto worktree, find_worktree(service, request, activity));
    CORAL_CHECK(worktree->wait_ingested());
    return Answer{};
}

Result<Answer> do_branches_changed(Service& service, const Json&, Activity&) {
    CORAL_CHECK(service.branches_changed());
    service.settle();
    return Answer{};
}

Result<Answer> do_release_branch(Service& service, const Json& request, Activity&) {
    CORAL_TRY(std::string branch, decode([&] { return text_of(request, "branch"); }));
    CORAL_CHECK(service.release_branch(branch));
    service.settle();
    return Answer{};
}

Result<Answer> do_packs_changed(Service& service, const Json&, Activity&) {
    CORAL_CHECK(service.packs_changed());
    return Answer{};
}

Result<Answer> do_warm(Service& service, const Json& request, Activity&) {
    CORAL_TRY(std::string path, decode([&] { return text_of(request, "path"); }));
    CORAL_TRY(bool plain, service.warm(path));
    return Answer{{}, {{"plain", plain}}};
}

Result<Answer> do_replace(Service& service, const Json&, Activity&) {
    CORAL_CHECK(service.replace());
    return Answer{};
}

Result<Answer> do_stop(Service& service, const Json&, Activity&) {
    CORAL_CHECK(service.stop());
    return Answer{};
}

const std::map<std::string, Handler, std::less<>>& table() {
    static const std::map<std::string, Handler, std::less<>> commands = {
        {"info", do_info},
        {"hello", do_hello},
        {"commit", do_commit},
        {"status", do_status},
        {"restore", do_restore},
        {"place", do_place},
        {"wait_ingested", do_wait_ingested},
        {"branches_changed", do_branches_changed},
        {"release_branch", do_release_branch},
        {"packs_changed", do_packs_changed},
        {"warm", do_warm},
        {"replace", do_replace},
        {kStopCommand, do_stop},
    };
    return commands;
}

}  // namespace

Result<Answer> execute(Service& service, const Json& request, Activity& activity) {
    CORAL_TRY(std::string command, decode([&] { return text_of(request, "command"); }));
    auto it = table().find(command);
    if (it == table().end())
        return make_error(Errc::kUnsupported,
                          fmt::format("the daemon does not know the command '{}': is it of another version?", command));
    return it->second(service, request, activity);
}

}  // namespace coral::control
