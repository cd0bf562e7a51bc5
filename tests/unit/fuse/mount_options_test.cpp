// SPDX-License-Identifier: Apache-2.0
#include "fuse/mount_options.hpp"

#include <gtest/gtest.h>

namespace coral::fuse {
namespace {

MountOptions parsed(std::string_view words) {
    MountOptions options;
    Status status = parse_mount_options(words, options);
    EXPECT_TRUE(status.ok()) << words << ": " << status.error().message;
    return options;
}

TEST(MountOptions, Ours) {
    MountOptions o = parsed(
        "ro,allow_other,memory=2G,cache_size=3G,materialize=never,hot_size=1G,new_pages=keep,passthrough=off,threads=3,"
        "readahead=8M,"
        "readahead_kb=512,share=off,auto_unmount,guard");
    EXPECT_TRUE(o.read_only && o.allow_other && o.auto_unmount && o.guard && !o.share && !o.allow_root && !o.nonempty);
    EXPECT_EQ(o.memory, 2ull << 30);
    EXPECT_EQ(o.cache_size, 3ull << 30);
    EXPECT_EQ(o.hot_size, 1ull << 30);
    EXPECT_TRUE(o.keep_new_pages);
    EXPECT_EQ(o.materialize, vfs::Options::Materialize::kNever);
    EXPECT_FALSE(o.passthrough);
    EXPECT_EQ(o.threads, 3u);
    EXPECT_EQ(o.readahead, 8ull << 20);
    EXPECT_EQ(o.readahead_kb, 512u);
    EXPECT_FALSE(parsed("").memory.has_value());
    EXPECT_TRUE(parsed("share=off,share=on").share);
    EXPECT_FALSE(parsed("ro,rw").read_only);
}

TEST(MountOptions, WhatFstabAndMountPassAlong) {
    MountOptions o = parsed(
        "rw,defaults,noauto,user,users,nofail,_netdev,nosuid,nodev,suid,dev,exec,relatime,x-systemd.automount,"
        "x-gvfs-show,X-mount.mkdir=0755,comment=systemd,noexec,noatime,,");
    EXPECT_EQ(o.kernel, (std::vector<std::string>{"noexec", "noatime"}));
    EXPECT_FALSE(o.read_only);
}

TEST(MountOptions, RefusesWhatItDoesNotKnow) {
    for (const char* words :
         {"cache_siez=1G", "cache_size", "cache_size=", "memory=1", "cache_size=x", "materialize=now", "passthrough=on",
          "hot_size=", "new_pages=", "new_pages=all", "threads=0", "threads=-1", "threads=9999999999", "share",
          "share=maybe", "uid=0", "fsname=", "Ro"}) {
        MountOptions options;
        EXPECT_FALSE(parse_mount_options(words, options).ok()) << words;
    }
}

TEST(MountOptions, AWrongSizeIsToldWithItsOption) {
    for (const char* name : {"memory", "cache_size", "readahead", "hot_size", "backlog"}) {
        MountOptions options;
        Status status = parse_mount_options(std::string(name) + "=abc", options);
        ASSERT_FALSE(status.ok()) << name;
        EXPECT_EQ(status.error().message, std::string("option '") + name + "': 'abc' is not a size such as 512M or 2G");
    }
}

TEST(MountOptions, Sizes) {
    EXPECT_EQ(*parse_size("0"), 0u);
    EXPECT_EQ(*parse_size("123"), 123u);
    EXPECT_EQ(*parse_size("1k"), 1024u);
    EXPECT_EQ(*parse_size("5MiB"), 5u << 20);
    EXPECT_EQ(*parse_size("1T"), 1ull << 40);
    for (const char* text : {"", "M", "-1", "1X", "1MM", "18446744073709551616", "9007199254740992T", "1 M", "0x10"})
        EXPECT_FALSE(parse_size(text).ok()) << text;
}

TEST(MountOptions, CommasInPathsAreEscaped) {
    EXPECT_EQ(escape_option("/a,b\\c"), "/a\\,b\\\\c");
    MountOptions o;
    EXPECT_EQ(fuse_arguments(o, "/x,ro"), "default_permissions,subtype=coral,fsname=/x\\,ro");
    o = parsed("fsname=a\\,b,ro,noexec");
    EXPECT_EQ(o.fsname, "a,b");
    EXPECT_EQ(source_name(o, "/x"), "a,b");
    EXPECT_EQ(fuse_arguments(o, "/x"), "default_permissions,subtype=coral,fsname=a\\,b,ro,noexec");
}

}  // namespace
}  // namespace coral::fuse
