// SPDX-License-Identifier: Apache-2.0
#include "control/wire.hpp"

#include <gtest/gtest.h>

namespace coral::control {
namespace {

std::string every_byte() {
    std::string all;
    for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
    return all;
}

TEST(Wire, EscapesEveryByteAndComesBack) {
    std::string escaped = escape(every_byte());
    EXPECT_EQ(unescape(escaped), every_byte());
    for (char c : escaped) EXPECT_TRUE(c >= 0x20 && c < 0x7f);
    EXPECT_EQ(escape("model-7.safetensors"), "model-7.safetensors");
    EXPECT_EQ(escape("100%"), "100%25");
    EXPECT_EQ(escape("\xff\xfe"), "%FF%FE");
}

TEST(Wire, RefusesBrokenEscapes) {
    for (const char* text : {"%", "%4", "%zz", "a%", "%%41", "%-1"}) EXPECT_THROW(unescape(text), Malformed) << text;
    EXPECT_EQ(unescape("%4a"), "J");
}

TEST(Wire, ParsesOnlyObjects) {
    EXPECT_TRUE(parse_line(R"({"command":"info"})").ok());
    for (const char* line : {"", "null", "[1]", "7", "{", "\"x\"", "{\"a\":}", "{\"a\":\"\xff\"}", "{} {}"}) {
        auto parsed = parse_line(line);
        ASSERT_FALSE(parsed.ok()) << line;
        EXPECT_EQ(parsed.error().code, Errc::kInvalid);
    }
}

TEST(Wire, RefusesDeepNestingQuickly) {
    std::string bomb = "{\"a\":" + std::string(4 << 20, '[');
    EXPECT_FALSE(parse_line(bomb).ok());
}

TEST(Wire, ErrorsKeepCategoryAndMessage) {
    for (int i = 0; i <= static_cast<int>(Errc::kInternal); ++i) {
        Error error = error_from(to_json(make_error(static_cast<Errc>(i), "a\xff.pt: no")));
        EXPECT_EQ(static_cast<int>(error.code), i);
        EXPECT_EQ(error.message, "a\xff.pt: no");
    }
    EXPECT_EQ(error_from(Json{{"errc", 9999}, {"error", "new"}}).code, Errc::kInternal);
}

TEST(Wire, CommitOptionsComeBack) {
    repo::CommitOptions options;
    options.message = "epoch 7\nüber %";
    options.paths = {"a/b", "\xff\xfe", every_byte()};
    options.author = repo::Person{"Ä\x01", "a@b", 1234567890123456789, -90};
    options.meta = {{"loss", "0.1"}, {"loss", "\xff"}};
    options.wait = true;
    auto back = commit_options_from(Json::parse(to_json(options).dump()));
    EXPECT_EQ(back.message, options.message);
    EXPECT_EQ(back.paths, options.paths);
    EXPECT_EQ(back.author, options.author);
    EXPECT_EQ(back.meta, options.meta);
    EXPECT_TRUE(back.wait);
    EXPECT_FALSE(back.allow_open);
}

TEST(Wire, ChangesComeBack) {
    repo::Change change;
    change.kind = repo::ChangeKind::kTypeChanged;
    change.path = every_byte();
    change.old_size = ~0ull;
    change.new_content.bytes[31] = std::byte{7};
    change.incomplete = true;
    auto back = change_from(Json::parse(to_json(change).dump()));
    EXPECT_EQ(back.kind, change.kind);
    EXPECT_EQ(back.path, change.path);
    EXPECT_EQ(back.old_size, change.old_size);
    EXPECT_EQ(back.old_content, change.old_content);
    EXPECT_EQ(back.new_content, change.new_content);
    EXPECT_TRUE(back.incomplete);
    EXPECT_FALSE(back.directory);
    EXPECT_THROW(change_from(Json{{"kind", 99}, {"path", ""}, {"old_size", 0}, {"new_size", 0}}), Malformed);
}

TEST(Wire, PlaceRequestsComeBack) {
    PlaceRequest file{"d/\xff", FileId{}, 123, 0755, -5, "", false};
    file.file.bytes[0] = std::byte{1};
    PlaceRequest link{"l", FileId{}, 0, 0777, 0, "../\xfe", false};
    PlaceRequest directory{"d", FileId{}, 0, 0750, 9, "", true};
    for (const PlaceRequest& request : {file, link, directory}) {
        auto back = place_request_from(Json::parse(to_json(request).dump()));
        EXPECT_EQ(back.path, request.path);
        EXPECT_EQ(back.file, request.file);
        EXPECT_EQ(back.size, request.size);
        EXPECT_EQ(back.mode, request.mode);
        EXPECT_EQ(back.mtime_ns, request.mtime_ns);
        EXPECT_EQ(back.link, request.link);
        EXPECT_EQ(back.directory, request.directory);
    }
}

TEST(Wire, DecodeTurnsEveryMistakeIntoAnError) {
    const char* lines[] = {"{}",
                           R"({"options":7})",
                           R"({"options":{"message":1}})",
                           R"({"options":{"message":"%"}})",
                           R"({"options":{"message":"","paths":"x","wait":true,"allow_open":true,"meta":[]}})",
                           R"({"options":{"message":"","paths":[],"wait":1,"allow_open":true,"meta":[]}})",
                           R"({"options":{"message":"","paths":[],"wait":true,"allow_open":true,"meta":[[]]}})"};
    for (const char* line : lines) {
        Json json = Json::parse(line);
        auto decoded = decode([&] { return commit_options_from(json.at("options")); });
        EXPECT_FALSE(decoded.ok()) << line;
    }
}

}  // namespace
}  // namespace coral::control
