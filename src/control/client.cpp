// SPDX-License-Identifier: Apache-2.0
#include "control/client.hpp"

#include <fmt/format.h>

#include "control/commands.hpp"
#include "control/socket.hpp"
#include "coral/base/os.hpp"

namespace coral::control {

namespace {

// The daemon speaks every two seconds while a command runs; a busy machine may delay it.
constexpr int kSilenceMs = 30'000;
constexpr std::size_t kBatchBytes = 1u << 20;
// How often a command is sent to one more daemon that follows one that died. Connecting waits for the next by itself.
constexpr int kMostDeaths = 100;

class SocketClient final : public Client {
  public:
    SocketClient(std::string path, int timeout_ms) : path_(std::move(path)), timeout_ms_(timeout_ms) {}

    Result<DaemonInfo> info() override {
        CORAL_TRY(Json result, call({{"command", "info"}}, nullptr, timeout_ms_));
        return decode([&] { return daemon_info_from(result); });
    }

    Status hello(const std::string& branch, const Uuid& worktree) {
        return done(call({{"command", "hello"}, {"branch", escape(branch)}, {"worktree", worktree.text()}}, nullptr,
                         timeout_ms_));
    }

    Result<repo::CommitResult> commit(const std::string& branch, const repo::CommitOptions& options) override {
        repo::CommitOptions timed = options;  // known again by its time, should its answer get lost
        if (!timed.time_ns) timed.time_ns = now_ns();
        CORAL_TRY(Json result, call({{"command", "commit"}, {"branch", escape(branch)}, {"options", to_json(timed)}}));
        return decode([&] { return commit_result_from(result); });
    }

    Result<repo::StatusResult> status(const std::string& branch) override {
        repo::StatusResult status;
        CORAL_TRY(Json result, call({{"command", "status"}, {"branch", escape(branch)}}, [&](const Json& part) {
                      for (const Json& change : part) status.changes.push_back(change_from(change));
                  }));
        CORAL_CHECK(done(decode([&] {
            status.branch = text_of(result, "branch");
            if (result.contains("commit")) status.commit = id_from<CommitId>(result.at("commit"));
            return true;
        })));
        return status;
    }

    Result<std::uint64_t> restore(const std::string& branch, const TreeId& source,
                                  const std::vector<std::string>& paths) override {
        return count(call(
            {{"command", "restore"}, {"branch", escape(branch)}, {"source", source.hex()}, {"paths", to_json(paths)}}));
    }

    // In batches, so that any number of files fits through lines of 16 MiB and the bar moves.
    Result<std::uint64_t> place(const std::string& branch, const std::vector<PlaceRequest>& requests) override {
        std::uint64_t placed = 0;
        Json batch = Json::array();
        std::size_t bytes = 0;
        for (std::size_t i = 0; i < requests.size(); ++i) {
            batch.push_back(to_json(requests[i]));
            bytes += 200 + 3 * (requests[i].path.size() + requests[i].link.size());
            if (bytes < kBatchBytes && i + 1 < requests.size()) continue;
            CORAL_TRY(std::uint64_t n, count(call({{"command", "place"},
                                                   {"branch", escape(branch)},
                                                   {"requests", std::exchange(batch, Json::array())}})));
            placed += n;
            bytes = 0;
            if (progress_) progress_(i + 1, requests.size());
        }
        return placed;
    }

    Status wait_ingested(const std::string& branch) override {
        return done(call({{"command", "wait_ingested"}, {"branch", escape(branch)}}));
    }
    Status branches_changed() override { return done(call({{"command", "branches_changed"}})); }
    Status release_branch(const std::string& branch) override {
        return done(call({{"command", "release_branch"}, {"branch", escape(branch)}}));
    }

    Result<bool> warm(const std::string& path) override {
        CORAL_TRY(Json result, call({{"command", "warm"}, {"path", escape(path)}}));
        return decode([&] { return result.at("plain").get<bool>(); });
    }
    Status replace() override { return done(call({{"command", "replace"}})); }
    Status packs_changed() override { return done(call({{"command", "packs_changed"}})); }

    Status stop() override {
        CORAL_TRY(UniqueFd fd, connect_to(path_, timeout_ms_));
        LineChannel channel(std::move(fd));
        (void)channel.write_line(Json{{"command", kStopCommand}}.dump());  // see call()
        std::vector<Json> parts;
        bool lost = false;
        CORAL_CHECK(done(receive(channel, parts, kSilenceMs, lost)));
        auto end = receive(channel, parts, kSilenceMs, lost);  // signs of life, then the end, or why it does not come
        if (!end && end.error().code == Errc::kNoData) return {};
        return done(std::move(end));
    }

    void on_progress(Progress progress) override { progress_ = std::move(progress); }

  private:
    using OnPart = std::function<void(const Json&)>;

    Result<Json> call(Json request, const OnPart& on_part = nullptr, int silence_ms = kSilenceMs) {
        for (int deaths = 0;; ++deaths) {
            bool lost = false;
            std::vector<Json> parts;
            auto answer = call_once(request, parts, silence_ms, lost);
            if (answer && on_part) {
                for (const Json& part : parts) on_part(part);
            }
            if (answer || !lost || deaths == kMostDeaths) return answer;
            if (request.contains("options")) request["options"]["again"] = true;
            // Nobody listens any more: there was no one to follow.
            if (!connect_to(path_, timeout_ms_)) return answer;
        }
    }

    // `lost`: the daemon was there and is gone; it may have done what we asked.
    Result<Json> call_once(const Json& request, std::vector<Json>& parts, int silence_ms, bool& lost) {
        std::string line = request.dump();
        if (line.size() > kMaxLine)
            return make_error(Errc::kTooLarge, "too many paths for one command; name a folder instead");
        CORAL_TRY(UniqueFd fd, connect_to(path_, timeout_ms_));
        LineChannel channel(std::move(fd));
        // A server that refuses us answers and closes before it has read: its answer says more than our broken pipe.
        Status sent = channel.write_line(line);
        auto answer = receive(channel, parts, silence_ms, lost);
        if (!sent && !answer && answer.error().code == Errc::kNoData) return std::move(sent).error();
        return answer;
    }

    Result<Json> receive(LineChannel& channel, std::vector<Json>& parts, int silence_ms, bool& lost) {
        while (true) {
            auto line = channel.read_line(silence_ms);
            if (!line) {
                lost = line.error().code != Errc::kBusy;  // that is silence
                return std::move(line).error().with(fmt::format("daemon at {}", path_));
            }
            CORAL_TRY(Json answer, parse_line(*line));
            CORAL_TRY(bool last, decode([&] { return is_last(answer, parts); }));
            if (!last) continue;
            CORAL_TRY(bool good, decode([&] { return answer.at("ok").get<bool>(); }));
            if (good) return answer.value("result", Json::object());
            Error error;
            CORAL_CHECK(done(decode([&] {
                error = error_from(answer);
                return true;
            })));
            return error;
        }
    }

    bool is_last(const Json& answer, std::vector<Json>& parts) {
        if (auto it = answer.find("progress"); it != answer.end()) {
            auto total = it->at("total").get<std::uint64_t>();
            if (progress_ && total) progress_(it->at("done").get<std::uint64_t>(), total);
            return false;
        }
        if (auto it = answer.find("part"); it != answer.end()) {
            parts.push_back(*it);
            return false;
        }
        return true;
    }

    template <class T>
    static Status done(Result<T> result) {
        if (!result) return std::move(result).error();
        return {};
    }
    static Result<std::uint64_t> count(Result<Json> result) {
        if (!result) return std::move(result).error();
        return decode([&] { return result->at("count").get<std::uint64_t>(); });
    }

    const std::string path_;
    const int timeout_ms_;
    Progress progress_;
};

}  // namespace

Result<std::unique_ptr<Client>> Client::connect(const std::string& socket_path, int timeout_ms) {
    auto client = std::make_unique<SocketClient>(socket_path, timeout_ms);
    CORAL_TRY(DaemonInfo info, client->info());
    (void)info;
    return std::unique_ptr<Client>(std::move(client));
}

Result<std::unique_ptr<Client>> connect_as_owner(const std::string& socket_path, const std::string& branch,
                                                 const Uuid& worktree) {
    auto client = std::make_unique<SocketClient>(socket_path, 5000);
    CORAL_CHECK(client->hello(branch, worktree));
    return std::unique_ptr<Client>(std::move(client));
}

}  // namespace coral::control
