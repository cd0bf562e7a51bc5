// SPDX-License-Identifier: Apache-2.0
#include "control/wire.hpp"

namespace coral::control {

namespace {

constexpr int kMaxDepth = 32;

int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    throw Malformed("bad %-escape");
}

template <class T>
T field(const Json& object, const char* key, T fallback) {
    auto it = object.find(key);
    return it == object.end() ? fallback : it->get<T>();
}

Json person_json(const repo::Person& person) {
    return {{"name", escape(person.name)},
            {"mail", escape(person.mail)},
            {"time_ns", person.time_ns},
            {"zone_minutes", person.zone_minutes}};
}

repo::Person person_from(const Json& json) {
    return {text_of(json, "name"), text_of(json, "mail"), json.at("time_ns").get<std::int64_t>(),
            json.at("zone_minutes").get<std::int16_t>()};
}

}  // namespace

std::string escape(std::string_view bytes) {
    static constexpr char kHex[] = "0123456789ABCDEF";
    std::string out;
    out.reserve(bytes.size());
    for (char c : bytes) {
        auto u = static_cast<unsigned char>(c);
        if (u >= 0x20 && u < 0x7f && c != '%') {
            out += c;
        } else {
            out += '%';
            out += kHex[u >> 4];
            out += kHex[u & 15];
        }
    }
    return out;
}

std::string unescape(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '%') {
            out += text[i];
            continue;
        }
        if (text.size() - i < 3) throw Malformed("bad %-escape");
        out += static_cast<char>(hex_digit(text[i + 1]) << 4 | hex_digit(text[i + 2]));
        i += 2;
    }
    return out;
}

Result<Json> parse_line(std::string_view line) {
    return decode([&] {
        auto limit_depth = [](int depth, Json::parse_event_t, Json&) {
            if (depth > kMaxDepth) throw Malformed("nested too deeply");
            return true;
        };
        Json json = Json::parse(line, limit_depth);
        if (!json.is_object()) throw Malformed("not an object");
        return json;
    });
}

std::string text_of(const Json& object, const char* key) {
    return unescape(object.at(key).get_ref<const std::string&>());
}

const Json& array_of(const Json& object, const char* key) {
    const Json& items = object.at(key);
    if (!items.is_array()) throw Malformed(std::string(key) + " is not a list");  // anything else can be iterated, too
    return items;
}

std::vector<std::string> texts_of(const Json& object, const char* key) {
    std::vector<std::string> out;
    for (const Json& item : array_of(object, key)) out.push_back(unescape(item.get_ref<const std::string&>()));
    return out;
}

Json to_json(const std::vector<std::string>& texts) {
    Json out = Json::array();
    for (const std::string& text : texts) out.push_back(escape(text));
    return out;
}

Json to_json(const Error& error) {
    return {{"ok", false}, {"errc", static_cast<int>(error.code)}, {"error", escape(error.message)}};
}

Error error_from(const Json& answer) {
    int number = field(answer, "errc", static_cast<int>(Errc::kInternal));
    // A newer daemon may know categories that we do not.
    if (number < 0 || number > static_cast<int>(Errc::kInternal)) number = static_cast<int>(Errc::kInternal);
    return {static_cast<Errc>(number), text_of(answer, "error")};
}

Json to_json(const repo::CommitOptions& options) {
    Json json = {{"message", escape(options.message)},
                 {"paths", to_json(options.paths)},
                 {"wait", options.wait},
                 {"allow_open", options.allow_open}};
    if (options.author) json["author"] = person_json(*options.author);
    if (options.time_ns) json["time_ns"] = *options.time_ns;
    if (options.again) json["again"] = true;
    Json meta = Json::array();
    for (const auto& [key, value] : options.meta) meta.push_back({escape(key), escape(value)});
    json["meta"] = std::move(meta);
    return json;
}

repo::CommitOptions commit_options_from(const Json& json) {
    repo::CommitOptions options;
    options.message = text_of(json, "message");
    options.paths = texts_of(json, "paths");
    options.wait = json.at("wait").get<bool>();
    options.allow_open = json.at("allow_open").get<bool>();
    if (auto it = json.find("author"); it != json.end()) options.author = person_from(*it);
    if (auto it = json.find("time_ns"); it != json.end()) options.time_ns = it->get<std::int64_t>();
    options.again = json.value("again", false);
    for (const Json& pair : array_of(json, "meta")) {
        options.meta.emplace_back(unescape(pair.at(0).get_ref<const std::string&>()),
                                  unescape(pair.at(1).get_ref<const std::string&>()));
    }
    return options;
}

Json to_json(const repo::CommitResult& result) {
    return {{"id", result.id.hex()},
            {"branch", escape(result.branch)},
            {"changed", result.changed},
            {"added", result.added},
            {"deleted", result.deleted}};
}

repo::CommitResult commit_result_from(const Json& json) {
    return {id_from<CommitId>(json.at("id")), text_of(json, "branch"), json.at("changed").get<std::uint64_t>(),
            json.at("added").get<std::uint64_t>(), json.at("deleted").get<std::uint64_t>()};
}

Json to_json(const repo::Change& change) {
    Json json = {{"kind", static_cast<int>(change.kind)},
                 {"path", escape(change.path)},
                 {"old_size", change.old_size},
                 {"new_size", change.new_size}};
    if (!change.old_content.is_zero()) json["old"] = change.old_content.hex();
    if (!change.new_content.is_zero()) json["new"] = change.new_content.hex();
    if (change.directory) json["directory"] = true;
    if (change.incomplete) json["incomplete"] = true;
    return json;
}

repo::Change change_from(const Json& json) {
    repo::Change change;
    int kind = json.at("kind").get<int>();
    if (kind < 0 || kind > static_cast<int>(repo::ChangeKind::kModeChanged)) throw Malformed("unknown kind of change");
    change.kind = static_cast<repo::ChangeKind>(kind);
    change.path = text_of(json, "path");
    change.old_size = json.at("old_size").get<std::uint64_t>();
    change.new_size = json.at("new_size").get<std::uint64_t>();
    if (auto it = json.find("old"); it != json.end()) change.old_content = id_from<AnyId>(*it);
    if (auto it = json.find("new"); it != json.end()) change.new_content = id_from<AnyId>(*it);
    change.directory = field(json, "directory", false);
    change.incomplete = field(json, "incomplete", false);
    return change;
}

Json to_json(const PlaceRequest& request) {
    Json json = {{"path", escape(request.path)}, {"mode", request.mode}, {"mtime_ns", request.mtime_ns}};
    if (request.directory) {
        json["directory"] = true;
    } else if (!request.link.empty()) {
        json["link"] = escape(request.link);
    } else {
        json["file"] = request.file.hex();
        json["size"] = request.size;
    }
    return json;
}

PlaceRequest place_request_from(const Json& json) {
    PlaceRequest request;
    request.path = text_of(json, "path");
    request.mode = json.at("mode").get<std::uint32_t>();
    request.mtime_ns = json.at("mtime_ns").get<std::int64_t>();
    request.directory = field(json, "directory", false);
    if (json.contains("link")) request.link = text_of(json, "link");
    if (!request.directory && request.link.empty()) {
        request.file = id_from<FileId>(json.at("file"));
        request.size = json.at("size").get<std::uint64_t>();
    }
    return request;
}

Json to_json(const DaemonInfo& info) {
    Json branches = Json::array();
    for (const std::string& name : info.read_only_branches) branches.push_back(escape(name));
    return {{"pid", info.pid},
            {"worker_pid", info.worker_pid},
            {"workers", info.workers},
            {"supervised", info.supervised},
            {"mount_point", escape(info.mount_point)},
            {"repository", escape(info.repository)},
            {"version", escape(info.version)},
            {"pending_ingest", info.pending_ingest},
            {"resident_bytes", info.resident_bytes},
            {"passthrough", escape(info.passthrough)},
            {"hot_bytes", info.hot_bytes},
            {"hot_limit", info.hot_limit},
            {"plain_bytes", info.plain_bytes},
            {"plain_limit", info.plain_limit},
            {"open_files", info.open_files},
            {"passthrough_files", info.passthrough_files},
            {"kernel_readahead_kb", info.kernel_readahead_kb},
            {"read_only", info.read_only},
            {"read_only_branches", branches}};
}

DaemonInfo daemon_info_from(const Json& json) {
    DaemonInfo info;
    info.pid = json.at("pid").get<std::uint32_t>();
    info.mount_point = text_of(json, "mount_point");
    info.repository = text_of(json, "repository");
    info.version = text_of(json, "version");
    info.pending_ingest = json.at("pending_ingest").get<std::uint64_t>();
    info.resident_bytes = json.at("resident_bytes").get<std::uint64_t>();
    info.worker_pid = json.value("worker_pid", info.pid);
    info.workers = json.value("workers", 1u);
    info.supervised = json.value("supervised", false);
    // A daemon of an older version does not know these.
    if (!json.contains("passthrough")) return info;
    info.passthrough = text_of(json, "passthrough");
    info.hot_bytes = json.at("hot_bytes").get<std::uint64_t>();
    info.hot_limit = json.at("hot_limit").get<std::uint64_t>();
    info.plain_bytes = json.at("plain_bytes").get<std::uint64_t>();
    info.plain_limit = json.at("plain_limit").get<std::uint64_t>();
    info.open_files = json.at("open_files").get<std::uint64_t>();
    info.passthrough_files = json.at("passthrough_files").get<std::uint64_t>();
    info.kernel_readahead_kb = json.value("kernel_readahead_kb", std::uint64_t{0});  // a daemon of today tells it
    info.read_only = json.value("read_only", false);
    if (json.contains("read_only_branches")) info.read_only_branches = texts_of(json, "read_only_branches");
    return info;
}

}  // namespace coral::control
