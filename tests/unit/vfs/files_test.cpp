// SPDX-License-Identifier: Apache-2.0
// Files of a branch: opens, writes, what stays of them, I/O modes.
#include <linux/falloc.h>
#include <unistd.h>

#include "vfs_fixture.hpp"

namespace coral::test {
namespace {

constexpr const char* kFile = "branches/main/f";

class FilesTest : public VfsTest {};

TEST_F(FilesTest, WhatIsWrittenIsReadInAnyOrderAndAfterRemount) {
    std::string data = noise(3'000'000, 7);
    auto opened = c().create(kFile, O_RDWR);
    ASSERT_OK(opened);
    ASSERT_OK(c().write(opened->handle, 2'000'000, std::string_view(data).substr(2'000'000)));
    ASSERT_OK(c().write(opened->handle, 0, std::string_view(data).substr(0, 1'000'000)));
    EXPECT_VALUE(c().read(opened->handle, 1'500'000, 10), std::string(10, '\0'));
    ASSERT_OK(c().write(opened->handle, 1'000'000, std::string_view(data).substr(1'000'000, 1'000'000)));
    EXPECT_TRUE(*c().read_all(opened->handle) == data);
    EXPECT_VALUE(c().read(opened->handle, data.size(), 10), "");
    EXPECT_VALUE(c().read(opened->handle, data.size() + 100, 10), "");
    ASSERT_OK(c().close(opened->handle));
    auto attr = c().stat(kFile);
    ASSERT_OK(attr);
    EXPECT_EQ(attr->size, data.size());
    EXPECT_EQ(attr->blocks, (data.size() + 511) / 512);
    EXPECT_EQ(attr->mode, 0644u);
    EXPECT_EQ(attr->uid, 1000u);
    EXPECT_EQ(attr->nlink, 1u);
    remount();
    EXPECT_TRUE(*c().cat(kFile) == data);
    EXPECT_EQ(c().stat(kFile)->node, attr->node) << "ids of branch entries outlive the daemon";
    settle();
    EXPECT_TRUE(*c().cat(kFile) == data);
    std::string root = "commits/" + commit().hex();
    EXPECT_TRUE(*c().cat(root + "/f") == data);
    EXPECT_EQ(c().stat(root + "/f")->mtime_ns, c().stat(kFile)->mtime_ns);
}

TEST_F(FilesTest, NothingIsWrittenBehind16TiB) {
    constexpr std::uint64_t kEnd = std::uint64_t{16} << 40;
    for (int flags : {O_WRONLY, O_RDWR}) {
        auto open = c().create(kFile, flags);
        ASSERT_OK(open);
        EXPECT_ERRC(c().write(open->handle, kEnd, "x"), Errc::kTooLarge);
        EXPECT_ERRC(c().write(open->handle, kEnd - 1, "xx"), Errc::kTooLarge);
        EXPECT_ERRC(fs_->allocate(open->handle, kEnd, 1, 0), Errc::kTooLarge);
        ASSERT_OK(c().close(open->handle));
        EXPECT_EQ(c().stat(kFile)->size, 0u);
    }
}

TEST_F(FilesTest, CreateObeysItsFlagsAndTheUmask) {
    auto first = c().create(kFile, O_WRONLY | O_EXCL, 0666);
    ASSERT_OK(first);
    EXPECT_EQ(c().stat(kFile)->mode, 0644u);
    ASSERT_OK(c().write(first->handle, 0, "abc"));
    EXPECT_ERRC(c().create(kFile, O_WRONLY | O_EXCL), Errc::kExists);
    auto again = c().create(kFile, O_RDWR);
    ASSERT_OK(again);
    EXPECT_VALUE(c().read_all(again->handle), "abc");
    ASSERT_OK(c().close(again->handle));
    ASSERT_OK(c().close(first->handle));
    auto truncated = c().open(kFile, O_RDONLY | O_TRUNC);
    ASSERT_OK(truncated);
    ASSERT_OK(c().close(truncated->handle));
    EXPECT_EQ(c().stat(kFile)->size, 0u);
}

TEST_F(FilesTest, HandlesAllowWhatTheyWereOpenedFor) {
    ASSERT_OK(c().put(kFile, "abc"));
    auto reader = c().open(kFile, O_RDONLY);
    ASSERT_OK(reader);
    EXPECT_ERRC(fs_->write(reader->handle, 0, as_bytes("x")), Errc::kBadHandle);
    EXPECT_ERRC(fs_->allocate(reader->handle, 0, 10, 0), Errc::kBadHandle);
    ASSERT_OK(c().close(reader->handle));
    EXPECT_ERRC(c().read(reader->handle, 0, 1), Errc::kBadHandle);
    EXPECT_ERRC(fs_->flush(reader->handle), Errc::kBadHandle);
    fs_->release(reader->handle);
    EXPECT_ERRC(c().open("branches/main", O_RDONLY), Errc::kIsDirectory);
    ASSERT_OK(c().make_link("branches/main/l", "f"));
    EXPECT_ERRC(c().open("branches/main/l", O_RDONLY), Errc::kLoop);
    EXPECT_ERRC(c().stat("branches/main/f/x"), Errc::kNotDirectory);
}

TEST_F(FilesTest, AppendersWriteAtTheEndAndMappedPagesWhereTheyLie) {
    ASSERT_OK(c().put(kFile, "0123"));
    auto a = c().open(kFile, O_WRONLY | O_APPEND);
    auto b = c().open(kFile, O_RDWR | O_APPEND);
    ASSERT_OK(a);
    ASSERT_OK(b);
    EXPECT_EQ(a->mode, vfs::IoMode::kCached);
    EXPECT_VALUE(fs_->write(a->handle, 4, as_bytes("aa"), vfs::WriteFrom::kAppender), 2u);
    EXPECT_VALUE(fs_->write(b->handle, 100, as_bytes("bb"), vfs::WriteFrom::kAppender),
                 2u);  // its size was out of date
    EXPECT_VALUE(fs_->write(b->handle, 1, as_bytes("X"), vfs::WriteFrom::kPages), 1u);
    EXPECT_VALUE(fs_->write(b->handle, 10, as_bytes("cc"), vfs::WriteFrom::kCaller), 2u);  // fcntl has taken O_APPEND
    ASSERT_OK(c().close(a->handle));
    ASSERT_OK(c().close(b->handle));
    EXPECT_VALUE(c().cat(kFile), std::string("0X23aabb\0\0cc", 12));
}

TEST_F(FilesTest, AnUnlinkedFileLivesWhileItIsOpen) {
    ASSERT_OK(c().put(kFile, "old"));
    auto open = c().open(kFile, O_RDWR);
    ASSERT_OK(open);
    auto held = c().walk(kFile);
    ASSERT_OK(held);
    ASSERT_OK(c().unlink(kFile));
    EXPECT_ERRC(c().stat(kFile), Errc::kNotFound);
    ASSERT_OK(c().write(open->handle, 3, " and more"));
    EXPECT_VALUE(c().read_all(open->handle), "old and more");
    auto by_handle = fs_->attributes(held->id(), open->handle);
    ASSERT_OK(by_handle);
    EXPECT_EQ(by_handle->attr.nlink, 0u);
    EXPECT_EQ(by_handle->attr.size, 12u);
    auto by_node = fs_->attributes(held->id(), std::nullopt);
    ASSERT_OK(by_node);
    EXPECT_EQ(by_node->attr.nlink, 0u);
    repo::SetAttributes set;
    set.size = 3;
    EXPECT_OK(fs_->set_attributes(held->id(), set, open->handle));
    EXPECT_VALUE(c().read_all(open->handle), "old");
    ASSERT_OK(c().put(kFile, "new"));
    EXPECT_NE(c().stat(kFile)->node, held->id());
    EXPECT_VALUE(c().read_all(open->handle), "old");
    ASSERT_OK(c().close(open->handle));
    EXPECT_VALUE(c().cat(kFile), "new");
}

TEST_F(FilesTest, ReplacedWhileOpenAndRenamedBeforeTheFlushAsSafetensorsDoes) {
    ASSERT_OK(c().put(kFile, "first"));
    auto reader = c().open(kFile, O_RDONLY);
    ASSERT_OK(reader);
    vfs::NodeId old_id = c().stat(kFile)->node;
    auto writer = c().create("branches/main/tmp", O_RDWR);
    ASSERT_OK(writer);
    auto tmp = c().walk("branches/main/tmp");
    ASSERT_OK(tmp);
    repo::SetAttributes set;
    set.size = 6;
    ASSERT_OK(fs_->set_attributes(tmp->id(), set, writer->handle));
    ASSERT_OK(c().write(writer->handle, 0, "second"));
    ASSERT_OK(c().rename("branches/main/tmp", kFile));
    EXPECT_VALUE(c().cat(kFile), "second");
    ASSERT_OK(c().close(writer->handle));
    EXPECT_VALUE(c().cat(kFile), "second");
    EXPECT_VALUE(c().read_all(reader->handle), "first");
    EXPECT_NE(c().stat(kFile)->node, old_id);
    EXPECT_EQ(c().stat(kFile)->node, tmp->id());
    ASSERT_OK(c().close(reader->handle));
}

TEST_F(FilesTest, NewPagesAreKeptWhereThatIsWished) {
    vfs::Options options;
    options.keep_new_pages = true;
    remount(options);
    auto writer = c().create(kFile, O_WRONLY);
    ASSERT_OK(writer);
    EXPECT_EQ(writer->mode, vfs::IoMode::kCached);
    ASSERT_OK(c().write(writer->handle, 0, "abc"));
    auto known = c().walk(kFile);
    ASSERT_OK(known);
    ASSERT_OK(c().close(writer->handle));
    auto reader = c().open(kFile, O_RDONLY);
    ASSERT_OK(reader);
    EXPECT_TRUE(reader->keep_cache);
    ASSERT_OK(c().close(reader->handle));
}

TEST_F(FilesTest, OnOldKernelsAFileThatWasReadIsWrittenThroughTheCache) {
    fs_->set_direct_over_pages(false);
    auto writer = c().create(kFile, O_WRONLY);
    ASSERT_OK(writer);
    EXPECT_EQ(writer->mode, vfs::IoMode::kDirect);
    ASSERT_OK(c().write(writer->handle, 0, "abc"));
    ASSERT_OK(c().close(writer->handle));
    auto known = c().walk(kFile);  // as long as the kernel knows the inode, it may have its pages
    ASSERT_OK(known);
    auto reader = c().open(kFile, O_RDONLY);
    ASSERT_OK(reader);
    ASSERT_OK(c().close(reader->handle));
    auto second = c().open(kFile, O_WRONLY);
    ASSERT_OK(second);
    EXPECT_EQ(second->mode, vfs::IoMode::kCached);
    ASSERT_OK(c().write(second->handle, 0, "xyz"));
    ASSERT_OK(c().close(second->handle));
    EXPECT_VALUE(c().cat(kFile), "xyz");
}

TEST_F(FilesTest, AttributesOfANewFileNeedNotBeAskedForAgain) {
    auto parent = c().walk("branches/main");
    ASSERT_OK(parent);
    auto made = fs_->create(parent->entry.attr.node, "new", 0644, O_WRONLY | O_EXCL, {});
    ASSERT_OK(made);
    EXPECT_GT(made->first.entry_timeout, 1e6);
    EXPECT_GT(made->first.attr_timeout, 1e6);
    fs_->release(made->second.handle);
}

TEST_F(FilesTest, OpensTellTheKernelTheRightMode) {
    auto writer = c().create(kFile, O_WRONLY);
    ASSERT_OK(writer);
    EXPECT_EQ(writer->mode, vfs::IoMode::kDirect);
    ASSERT_OK(c().write(writer->handle, 0, "abc"));
    auto beside = c().open(kFile, O_RDONLY);
    ASSERT_OK(beside);
    EXPECT_EQ(beside->mode, vfs::IoMode::kDirect) << "its pages would not see the next write";
    ASSERT_OK(c().close(beside->handle));
    ASSERT_OK(fs_->flush(writer->handle));
    auto reader = c().open(kFile, O_RDONLY);  // before the writer's RELEASE
    ASSERT_OK(reader);
    EXPECT_EQ(reader->mode, vfs::IoMode::kCached);
    EXPECT_FALSE(reader->keep_cache);
    ASSERT_OK(c().close(reader->handle));
    ASSERT_OK(c().write(writer->handle, 3, "d"));
    reader = c().open(kFile, O_RDONLY);
    ASSERT_OK(reader);
    EXPECT_EQ(reader->mode, vfs::IoMode::kDirect) << "it has written again";
    ASSERT_OK(c().close(reader->handle));
    ASSERT_OK(fs_->sync(writer->handle));
    reader = c().open(kFile, O_RDONLY);
    ASSERT_OK(reader);
    EXPECT_EQ(reader->mode, vfs::IoMode::kCached) << "synced is as good as flushed";
    fs_->release(writer->handle);
    auto second = c().open(kFile, O_RDONLY);
    ASSERT_OK(second);
    EXPECT_TRUE(second->keep_cache);
    auto late = c().open(kFile, O_WRONLY);
    ASSERT_OK(late);
    EXPECT_EQ(late->mode, vfs::IoMode::kCached) << "somebody may have it mapped";
    for (auto* o : {&*reader, &*second, &*late}) ASSERT_OK(c().close(o->handle));
    std::string root = "commits/" + commit().hex();
    auto committed = c().open(root + "/f", O_RDONLY);
    ASSERT_OK(committed);
    EXPECT_EQ(committed->mode, vfs::IoMode::kCached);
    EXPECT_TRUE(committed->keep_cache);
    ASSERT_OK(c().close(committed->handle));
}

// As safetensors saves: a temporary file of its own, opened for reading and writing, renamed at the end.
TEST_F(FilesTest, WhoMadeAFileForHimselfWritesItDirectly) {
    const int own = O_RDWR | O_CREAT | O_EXCL;
    auto mode_of = [&](const char* name, int flags) {
        auto opened = c().create(std::string("branches/main/") + name, flags);
        EXPECT_TRUE(opened.ok());
        if (!opened) return vfs::IoMode::kPassthrough;
        EXPECT_TRUE(c().close(opened->handle).ok());
        return opened->mode;
    };
    EXPECT_EQ(mode_of("a", own), vfs::IoMode::kCached) << "it may be mapped, and this kernel does not do that";
    fs_->set_direct_maps(true);
    EXPECT_EQ(mode_of("b", own), vfs::IoMode::kDirect);
    EXPECT_EQ(mode_of("c", O_RDWR | O_CREAT), vfs::IoMode::kCached);
    EXPECT_EQ(mode_of("d", own | O_APPEND), vfs::IoMode::kCached);
    fs_->set_direct_over_pages(false);
    EXPECT_EQ(mode_of("e", own), vfs::IoMode::kDirect) << "nobody has pages of it";
}

TEST_F(FilesTest, SeekFindsNoHolesAndAllocateOnlyGrows) {
    ASSERT_OK(c().put(kFile, "0123456789"));
    auto open = c().open(kFile, O_RDWR);
    ASSERT_OK(open);
    EXPECT_VALUE(fs_->seek(open->handle, 3, SEEK_DATA), 3u);
    EXPECT_VALUE(fs_->seek(open->handle, 3, SEEK_HOLE), 10u);
    EXPECT_ERRC(fs_->seek(open->handle, 10, SEEK_DATA), Errc::kBeyondEnd);
    EXPECT_ERRC(fs_->seek(open->handle, 10, SEEK_HOLE), Errc::kBeyondEnd);
    EXPECT_ERRC(fs_->seek(open->handle, 0, SEEK_SET), Errc::kInvalid);
    EXPECT_OK(fs_->allocate(open->handle, 0, 20, FALLOC_FL_KEEP_SIZE));
    EXPECT_EQ(c().stat(kFile)->size, 10u);
    EXPECT_OK(fs_->allocate(open->handle, 5, 10, 0));
    EXPECT_EQ(c().stat(kFile)->size, 15u);
    EXPECT_VALUE(c().read_all(open->handle), "0123456789" + std::string(5, '\0'));
    EXPECT_ERRC(fs_->allocate(open->handle, 0, 5, FALLOC_FL_COLLAPSE_RANGE), Errc::kUnsupported);
    EXPECT_ERRC(fs_->allocate(open->handle, 0, 5, FALLOC_FL_INSERT_RANGE), Errc::kUnsupported);
    EXPECT_OK(fs_->sync(open->handle));
    ASSERT_OK(c().close(open->handle));
    auto main = c().walk("branches/main");
    EXPECT_OK(fs_->sync_directory(main->id()));
}

TEST_F(FilesTest, PunchedAndZeroedRangesReadAsZeros) {
    constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    // Over bytes in packs as over fresh ones; over more than one write of zeros takes, and across an overlay's units.
    std::string model = noise(3u << 20, 7);
    ASSERT_OK(c().put(kFile, model));
    for (bool stored : {false, true}) {
        if (stored) settle();
        auto open = c().open(kFile, O_RDWR);
        ASSERT_OK(open);
        auto zero = [&](std::uint64_t offset, std::uint64_t length, int mode) {
            EXPECT_OK(fs_->allocate(open->handle, offset, length, mode));
            std::uint64_t end = std::min<std::uint64_t>(offset + length, model.size());
            if (offset < end) model.replace(offset, end - offset, end - offset, '\0');
        };
        zero(5, 10, kPunch);
        zero((256u << 10) - 3, 7, FALLOC_FL_ZERO_RANGE);
        zero(700'000, 1'500'000, kPunch);
        zero(model.size() - 100, 1000, kPunch);
        zero(model.size() + 10, 1000, kPunch);
        zero(model.size() - 200, 1000, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE);
        EXPECT_EQ(c().stat(kFile)->size, model.size()) << "its size is kept";
        zero(model.size() - 1, 1000, FALLOC_FL_ZERO_RANGE);
        model.append(999, '\0');
        EXPECT_TRUE(*c().read_all(open->handle) == model);
        ASSERT_OK(c().close(open->handle));
    }
    settle();
    EXPECT_TRUE(*c().cat(kFile) == model);
    remount();
    EXPECT_TRUE(*c().cat(kFile) == model);
}

TEST_F(FilesTest, AFileWithASetUidBitIsWrittenThroughTheCache) {
    ASSERT_OK(c().put(kFile, "x"));
    for (std::uint32_t mode : {04755u, 02755u, 0755u}) {
        repo::SetAttributes set;
        set.mode = mode;
        ASSERT_OK(c().set(kFile, set));
        auto open = c().open(kFile, O_WRONLY);
        ASSERT_OK(open);
        EXPECT_EQ(open->mode, mode == 0755u ? vfs::IoMode::kDirect : vfs::IoMode::kCached);
        ASSERT_OK(c().close(open->handle));
    }
}

TEST_F(FilesTest, AttributesCanBeSet) {
    ASSERT_OK(c().put(kFile, "x"));
    repo::SetAttributes set;
    set.mode = 04750;
    set.uid = 7;
    set.gid = 8;
    set.mtime_ns = 1'234'567'890'123'456'789;
    set.atime_ns = 5;
    ASSERT_OK(c().set(kFile, set));
    auto attr = c().stat(kFile);
    ASSERT_OK(attr);
    EXPECT_EQ(attr->mode, 04750u);
    EXPECT_EQ(attr->uid, 7u);
    EXPECT_EQ(attr->gid, 8u);
    EXPECT_EQ(attr->mtime_ns, *set.mtime_ns);
    remount();
    EXPECT_EQ(c().stat(kFile)->mode, 04750u);
    EXPECT_EQ(c().stat(kFile)->mtime_ns, *set.mtime_ns);
    std::string root = "commits/" + commit().hex();
    EXPECT_EQ(c().stat(root + "/f")->mode, 0750u);
    EXPECT_EQ(c().stat(root + "/f")->mtime_ns, *set.mtime_ns);
}

TEST_F(FilesTest, WhatACommitNamesAndTheStoreHasNotIsAnErrorNotAnAbsence) {
    repo::Tree tree;
    repo::TreeEntry file;
    file.name = "lost";
    file.size = 5;
    file.content.bytes.fill(std::byte{7});
    repo::TreeEntry folder = file;
    folder.name = "lost-folder";
    folder.type = repo::EntryType::kDirectory;
    folder.mode = 0755;
    folder.size = 0;
    tree.entries = {file, folder};
    repo::Commit commit;
    auto id = repo_->put_tree(tree);
    ASSERT_OK(id);
    commit.tree = *id;
    commit.author = commit.committer = {"A", "a@b", 1'000'000'000, 0};
    auto made = repo_->put_commit(commit);
    ASSERT_OK(made);
    std::string root = "commits/" + made->hex();
    EXPECT_EQ(c().stat(root + "/lost")->size, 5u);
    EXPECT_ERRC(c().open(root + "/lost", O_RDONLY), Errc::kCorrupt);
    EXPECT_ERRC(c().stat(root + "/lost-folder/x"), Errc::kCorrupt);
    EXPECT_ERRC(c().names(root + "/lost-folder"), Errc::kCorrupt);
}

}  // namespace
}  // namespace coral::test
