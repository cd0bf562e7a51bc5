// SPDX-License-Identifier: Apache-2.0
// The JSON forms of everything that travels (README.md). Names are bytes, JSON wants UTF-8: strings are
// percent-escaped.
#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <string_view>
#include <vector>

#include "coral/control/protocol.hpp"

namespace coral::control {

using Json = nlohmann::json;

// Printable ASCII but '%' stays; every other byte becomes %XX. Unescape refuses a broken escape (throws Malformed).
std::string escape(std::string_view bytes);
std::string unescape(std::string_view text);

struct Malformed : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Parses one line, at most 32 levels deep: kInvalid for anything but an object.
Result<Json> parse_line(std::string_view line);
// Runs `f`, which may throw Malformed or what nlohmann throws for a missing or mistyped field: kInvalid then.
template <class F>
auto decode(F&& f) -> Result<decltype(f())> {
    try {
        return f();
    } catch (const std::exception& e) {
        return make_error(Errc::kInvalid, std::string("malformed message: ") + e.what());
    }
}

std::string text_of(const Json& object, const char* key);  // unescaped; throws when absent
const Json& array_of(const Json& object, const char* key);
std::vector<std::string> texts_of(const Json& object, const char* key);
Json to_json(const std::vector<std::string>& texts);

Json to_json(const Error& error);  // the whole {"ok": false, …} answer
Error error_from(const Json& answer);

Json to_json(const repo::CommitOptions& options);
repo::CommitOptions commit_options_from(const Json& json);
Json to_json(const repo::CommitResult& result);
repo::CommitResult commit_result_from(const Json& json);
Json to_json(const repo::Change& change);
repo::Change change_from(const Json& json);
Json to_json(const PlaceRequest& request);
PlaceRequest place_request_from(const Json& json);
Json to_json(const DaemonInfo& info);
DaemonInfo daemon_info_from(const Json& json);

template <class T>
T id_from(const Json& json) {
    auto id = T::from_hex(json.get_ref<const std::string&>());
    if (!id) throw Malformed("not an id");
    return *id;
}

}  // namespace coral::control
