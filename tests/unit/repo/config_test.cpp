// SPDX-License-Identifier: Apache-2.0
#include "coral/repo/settings.hpp"

#include <gtest/gtest.h>

#include <filesystem>

#include "unit/repo/repo_fixture.hpp"

namespace coral::repo {
namespace {

using testing::RepositoryTest;

std::string edit(const std::string& text, const std::string& key, const std::optional<std::string>& value) {
    auto edited = edit_settings(text, key, value, "x.toml");
    EXPECT_TRUE(edited.ok()) << edited.error().message;
    return edited.value_or("");
}

TEST(Settings, AnEditTouchesOnlyItsValue) {
    const std::string text =
        "# mine\n[user]  # who\nname = \"Jörg \\\"x\\\"\"   # as in the passport\nemail = 'a@b'\n\n[store]\ncache_mib "
        "= 512\n";
    EXPECT_EQ(
        edit(text, "user.name", "Ann"),
        "# mine\n[user]  # who\nname = \"Ann\"   # as in the passport\nemail = 'a@b'\n\n[store]\ncache_mib = 512\n");
    EXPECT_EQ(edit(text, "store.cache_mib", "64"),
              "# mine\n[user]  # who\nname = \"Jörg \\\"x\\\"\"   # as in the passport\nemail = "
              "'a@b'\n\n[store]\ncache_mib = 64\n");
    EXPECT_EQ(edit(text, "user.email", std::nullopt),
              "# mine\n[user]  # who\nname = \"Jörg \\\"x\\\"\"   # as in the passport\n\n[store]\ncache_mib = 512\n");
    EXPECT_EQ(edit(text, "store.pack_mib", "7"),
              text.substr(0, text.find("cache_mib")) + "pack_mib = 7\ncache_mib = 512\n");
    EXPECT_EQ(edit(text, "new.key", "v"), text + "\n[new]\nkey = \"v\"\n");
    EXPECT_EQ(edit("", "a.b-c.d_e", "true"), "[a.b-c]\nd_e = true\n");
    EXPECT_EQ(edit("[a]", "a.b", "x"), "[a]\nb = \"x\"\n");
}

// Where the text cannot be edited in place, comments may go but never a value.
TEST(Settings, UnusualFilesKeepTheirValues) {
    testing::TempDir temp;
    auto after = [&](const std::string& text, const std::string& key, const std::optional<std::string>& value) {
        EXPECT_OK(write_file_atomic(real_os(), temp / "x.toml", as_bytes(edit(text, key, value))));
        return read_settings(real_os(), temp / "x.toml").value_or({});
    };
    EXPECT_EQ(after("user = { name = \"a\", email = \"b\" }\n", "user.name", std::nullopt),
              (Settings{{"user.email", "b"}}));
    EXPECT_EQ(after("user = { name = \"a\" }\n", "user.email", "new"),
              (Settings{{"user.email", "new"}, {"user.name", "a"}}));
    EXPECT_EQ(after("user.name = \"a\"\nuser.email = \"b\"\n", "user.name", "c"),
              (Settings{{"user.email", "b"}, {"user.name", "c"}}));
    EXPECT_EQ(after("user.name = \"a\"\n", "user.email", "e"), (Settings{{"user.email", "e"}, {"user.name", "a"}}));
    EXPECT_EQ(after("[a.b]\nc = 1\n", "a.x", "2"), (Settings{{"a.b.c", "1"}, {"a.x", "2"}}));
    EXPECT_EQ(after("[s]\nt = \"\"\"a\nb\"\"\"\nu = 1", "s.t", std::nullopt), (Settings{{"s.u", "1"}}));
    EXPECT_EQ(after("[s]\nt = \"\"\"a\nb\"\"\"\nu = 1", "s.t", "x"), (Settings{{"s.t", "x"}, {"s.u", "1"}}));
    EXPECT_EQ(after("[s]\r\nt = 1\r\nu = 2\r\n", "s.t", "9"), (Settings{{"s.t", "9"}, {"s.u", "2"}}));
    Settings arrays = after("[[list]]\nn = 1\n[s]\nv = [1,\n 2]\n", "s.v", "x");
    EXPECT_EQ(find_setting(arrays, "s.v"), "x");
    EXPECT_TRUE(find_setting(arrays, "list"));
}

TEST(Settings, WhatCannotBeSet) {
    for (const char* key : {"", "a", ".", "a.", ".a", "a..b", "a b.c", "a.b\nc", "a.é"}) {
        EXPECT_ERROR(edit_settings("", key, "x", "x.toml"), Errc::kInvalid, "SECTION.NAME");
    }
    EXPECT_ERROR(edit_settings("[a.b]\nc=1\n", "a.b", "x", "x.toml"), Errc::kInvalid, "section");
    EXPECT_ERROR(edit_settings("a = 1\n", "a.b", "x", "x.toml"), Errc::kInvalid, "x.toml");
    EXPECT_ERROR(edit_settings("", "a.b", std::nullopt, "x.toml"), Errc::kNotFound, "not set");
    EXPECT_ERROR(edit_settings("", "a.b", "\xff", "x.toml"), Errc::kInvalid, "UTF-8");
    EXPECT_ERROR(edit_settings("[a\n", "a.b", "x", "x.toml"), Errc::kInvalid, "x.toml:1");
}

TEST_F(RepositoryTest, ValuesComeBackAsTheyWereSet) {
    for (std::string value :
         {std::string("plain"), std::string(""), std::string("007"), std::string("12"), std::string("-3"),
          std::string("true"), std::string("0.0010"), std::string("a \"quoted\" \\ one"),
          std::string("line\nline\ttab\x01"), std::string("é# not a comment"), std::string("[x]"),
          std::string("99999999999999999999")}) {
        ASSERT_OK(repo_->set_config("t.value", value, false));
        EXPECT_EQ(repo_->config("t.value").value(), value);
    }
    EXPECT_NE(read_file(real_os(), dir() + "/coral.toml").value().find("# Options of this repository"),
              std::string::npos);
}

TEST_F(RepositoryTest, TheRepositoryOverTheUser) {
    EXPECT_EQ(repo_->config("user.name").value(), std::nullopt);
    ASSERT_OK(repo_->set_config("user.name", "global", true));
    EXPECT_EQ(repo_->config("user.name").value(), "global");
    ASSERT_OK(repo_->set_config("user.name", "local", false));
    ASSERT_OK(repo_->set_config("z.y", "1", true));
    EXPECT_EQ(repo_->config("user.name").value(), "local");
    auto all = repo_->all_config();
    ASSERT_OK(all);
    EXPECT_EQ(*all, (Settings{{"user.name", "local"}, {"z.y", "1"}}));
    ASSERT_OK(repo_->set_config("user.name", std::nullopt, false));
    EXPECT_EQ(repo_->config("user.name").value(), "global");
    EXPECT_EQ(read_file(real_os(), temp_ / "config/coral/config.toml").value(),
              "[user]\nname = \"global\"\n\n[z]\ny = 1\n");
}

TEST_F(RepositoryTest, ALinkedGlobalFileStaysALink) {
    std::filesystem::create_directories(temp_ / "config/coral");
    std::filesystem::create_symlink(temp_ / "dotfile.toml", temp_ / "config/coral/config.toml");
    ASSERT_OK(write_file_atomic(real_os(), temp_ / "dotfile.toml", as_bytes("# dots\n")));
    ASSERT_OK(repo_->set_config("a.b", "1", true));
    EXPECT_TRUE(std::filesystem::is_symlink(temp_ / "config/coral/config.toml"));
    EXPECT_EQ(read_file(real_os(), temp_ / "dotfile.toml").value(), "# dots\n\n[a]\nb = 1\n");
}

TEST_F(RepositoryTest, ABrokenFileIsNamedAndLocksNobodyOut) {
    ASSERT_OK(write_file_atomic(real_os(), dir() + "/coral.toml", as_bytes("ok = 1\n[broken\n")));
    EXPECT_ERROR(repo_->config("user.name"), Errc::kInvalid, "coral.toml:2");
    EXPECT_ERROR(repo_->set_config("a.b", "1", false), Errc::kInvalid, "coral.toml:2");
    EXPECT_TRUE(reopen());
    EXPECT_OK(repo_->identity());
    std::filesystem::remove(dir() + "/coral.toml");
    EXPECT_EQ(repo_->config("user.name").value(), std::nullopt);
    ASSERT_OK(repo_->set_config("a.b", "1", false));
}

TEST_F(RepositoryTest, Identity) {
    auto person = repo_->identity();
    ASSERT_OK(person);
    EXPECT_FALSE(person->name.empty());
    EXPECT_NE(person->mail.find('@'), std::string::npos);
    EXPECT_LT(std::abs(person->time_ns - now_ns()), 60'000'000'000);
    ASSERT_OK(repo_->set_config("user.name", "Conf <Igured>\n", false));
    ASSERT_OK(repo_->set_config("user.email", "c@d", true));
    person = repo_->identity();
    EXPECT_EQ(person->name, "Conf Igured");
    EXPECT_EQ(person->mail, "c@d");
    ::setenv("CORAL_AUTHOR_NAME", "Env\nparent 00", 1);
    ::setenv("CORAL_AUTHOR_EMAIL", "e@f", 1);
    person = repo_->identity();
    EXPECT_EQ(person->name, "Env parent 00");
    EXPECT_EQ(person->mail, "e@f");
    Commit c;
    c.author = c.committer = *person;
    EXPECT_OK(repo_->put_commit(c));
}

TEST_F(RepositoryTest, TheTimeZoneIsTheLocalOne) {
    const char* old = std::getenv("TZ");
    std::string before = old ? old : "";
    ::setenv("TZ", "XXX-05:30", 1);
    ::tzset();
    EXPECT_EQ(repo_->identity().value().zone_minutes, 330);
    if (old)
        ::setenv("TZ", before.c_str(), 1);
    else
        ::unsetenv("TZ");
    ::tzset();
}

}  // namespace
}  // namespace coral::repo
