// SPDX-License-Identifier: Apache-2.0
#include "cli/json.hpp"

#include "cli/text.hpp"
#include "coral/base/bytes.hpp"

namespace coral::cli {
namespace {

const char* change_word(repo::ChangeKind kind) {
    switch (kind) {
        case repo::ChangeKind::kAdded:
            return "added";
        case repo::ChangeKind::kModified:
            return "modified";
        case repo::ChangeKind::kDeleted:
            return "deleted";
        case repo::ChangeKind::kTypeChanged:
            return "type";
        case repo::ChangeKind::kModeChanged:
            return "mode";
    }
    return "modified";
}

}  // namespace

Json json_document(std::string_view command) {
    return Json{{"schema", fmt::format("coral.{}/1", command)}};
}

void put_text(Json& object, const std::string& key, std::string_view text) {
    object[key] = to_utf8(text);
    if (!is_utf8(text)) object[key + "_hex"] = to_hex(as_bytes(text));
}

Json json_of(const repo::Person& person) {
    Json out;
    put_text(out, "name", person.name);
    put_text(out, "email", person.mail);
    out["time"] = time_iso(person.time_ns, person.zone_minutes);
    out["time_ns"] = person.time_ns;
    return out;
}

Json json_of(const repo::Change& change) {
    Json out;
    put_text(out, "path", change.path);
    out["change"] = change_word(change.kind);
    out["directory"] = change.directory;
    out["incomplete"] = change.incomplete;
    out["old_size"] = change.old_size;
    out["new_size"] = change.new_size;
    out["old_id"] = change.old_content.is_zero() ? Json(nullptr) : Json(change.old_content.hex());
    out["new_id"] = change.new_content.is_zero() ? Json(nullptr) : Json(change.new_content.hex());
    return out;
}

void put_commit(Json& object, const CommitId& id, const repo::Commit& commit) {
    object["id"] = id.hex();
    object["tree"] = commit.tree.hex();
    object["parents"] = Json::array();
    for (const CommitId& parent : commit.parents) object["parents"].push_back(parent.hex());
    object["author"] = json_of(commit.author);
    object["committer"] = json_of(commit.committer);
    object["meta"] = Json::object();
    for (const auto& [key, value] : commit.meta) put_text(object["meta"], to_utf8(key), value);
    put_text(object, "message", commit.message);
}

void print_json(Output& out, const Json& document) {
    out.write(document.dump(2, ' ', false, Json::error_handler_t::replace));
    out.write("\n");
}

JsonList::JsonList(Output& out, Json document, std::string_view key) : out_(out) {
    document[std::string(key)] = Json::array();
    std::string text = document.dump(-1, ' ', false, Json::error_handler_t::replace);
    out_.write(std::string_view(text).substr(0, text.size() - 2));  // without "]}"
}

void JsonList::add(const Json& element) {
    out_.write(first_ ? "\n" : ",\n");
    out_.write(element.dump(-1, ' ', false, Json::error_handler_t::replace));
    first_ = false;
}

JsonList::~JsonList() {
    out_.write(first_ ? "]}\n" : "\n]}\n");
}

}  // namespace coral::cli
