// SPDX-License-Identifier: Apache-2.0
// JSON that commands print. One document a command, with "schema": "coral.NAME/1" first. A name that is not UTF-8 is
// shown with U+FFFD, and its exact bytes in hex stand beside it: "path": "a\ufffd", "path_hex": "61ff".
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "cli/output.hpp"
#include "coral/repo/diff.hpp"
#include "coral/repo/objects.hpp"

namespace coral::cli {

using Json = nlohmann::ordered_json;

Json json_document(std::string_view command);  // {"schema": "coral.COMMAND/1"}
void put_text(Json& object, const std::string& key, std::string_view text);
Json json_of(const repo::Person& person);
Json json_of(const repo::Change& change);
// {"id", "tree", "parents", "author", "committer", "meta", "message"} into `object`.
void put_commit(Json& object, const CommitId& id, const repo::Commit& commit);

void print_json(Output& out, const Json& document);  // indented

// {"schema": …, fields…, "KEY": [ … ]} with one element a line, written as it comes: for lists of any length.
class JsonList {
  public:
    JsonList(Output& out, Json document, std::string_view key);
    ~JsonList();  // closes list and document
    JsonList(const JsonList&) = delete;
    JsonList& operator=(const JsonList&) = delete;
    void add(const Json& element);

  private:
    Output& out_;
    bool first_ = true;
};

}  // namespace coral::cli
