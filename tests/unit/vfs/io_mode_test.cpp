// SPDX-License-Identifier: Apache-2.0
#include "vfs/io_mode.hpp"

#include <gtest/gtest.h>

namespace coral::vfs {
namespace {

using Want = IoState::Want;
using State = IoState::State;

TEST(IoState, WriteOnlyOpensAreDirectOthersCached) {
    IoState io;
    auto w = io.open(Want::kDirect);
    EXPECT_EQ(w.ticket.mode, IoMode::kDirect);
    EXPECT_EQ(io.state(), State::kDirect);
    io.close(w.ticket);
    EXPECT_EQ(io.state(), State::kIdle);
    auto r = io.open(Want::kCached);
    EXPECT_EQ(r.ticket.mode, IoMode::kCached);
    EXPECT_TRUE(r.keep_cache);
    io.close(r.ticket);
    EXPECT_EQ(io.state(), State::kIdle);
}

TEST(IoState, TheModeBelongsToTheInodeWhileItHasHandles) {
    IoState io;
    auto r = io.open(Want::kCached);
    auto w = io.open(Want::kDirect);
    EXPECT_EQ(w.ticket.mode, IoMode::kCached);
    EXPECT_FALSE(io.wrote(w.ticket));
    io.close(r.ticket);
    EXPECT_EQ(io.state(), State::kCached);
    io.close(w.ticket);

    auto direct = io.open(Want::kDirect);
    auto reader = io.open(Want::kCached);
    EXPECT_EQ(reader.ticket.mode, IoMode::kDirect);
    io.close(direct.ticket);
    EXPECT_EQ(io.state(), State::kIdle) << "a reader binds nobody";
    io.close(reader.ticket);
}

TEST(IoState, AFlushedWriterDoesNotBind) {
    IoState io;
    auto w = io.open(Want::kDirect);
    EXPECT_FALSE(io.wrote(w.ticket));
    io.flushed(w.ticket);
    // RELEASE has not come yet.
    auto r = io.open(Want::kCached);
    EXPECT_EQ(r.ticket.mode, IoMode::kCached);
    EXPECT_FALSE(r.keep_cache) << "pages from before the direct write may be there";
    // Its descriptor was shared by fork, and goes on.
    EXPECT_TRUE(io.wrote(w.ticket));
    io.close(w.ticket);
    io.close(r.ticket);
    EXPECT_EQ(io.state(), State::kIdle);
}

TEST(IoState, PagesAreDroppedOnceAfterADirectSession) {
    IoState io;
    auto w = io.open(Want::kDirect);
    io.wrote(w.ticket);
    io.flushed(w.ticket);
    io.close(w.ticket);
    auto first = io.open(Want::kCached);
    EXPECT_FALSE(first.keep_cache);
    io.close(first.ticket);
    auto second = io.open(Want::kCached);
    EXPECT_TRUE(second.keep_cache);
    io.close(second.ticket);
    io.changed_outside();
    auto third = io.open(Want::kCached);
    EXPECT_FALSE(third.keep_cache);
    io.close(third.ticket);
}

TEST(IoState, OldKernelsWriteDirectlyOnlyWhatHasNoPages) {
    IoState io;
    auto fresh = io.open(Want::kDirectUnlessPages);
    EXPECT_EQ(fresh.ticket.mode, IoMode::kDirect);
    io.wrote(fresh.ticket);
    io.flushed(fresh.ticket);
    io.close(fresh.ticket);
    auto again = io.open(Want::kDirectUnlessPages);
    EXPECT_EQ(again.ticket.mode, IoMode::kDirect) << "nobody has read it";
    io.flushed(again.ticket);
    io.close(again.ticket);
    auto reader = io.open(Want::kCached);
    io.close(reader.ticket);
    EXPECT_EQ(io.state(), State::kIdle);
    auto late = io.open(Want::kDirectUnlessPages);
    EXPECT_EQ(late.ticket.mode, IoMode::kCached) << "the reader's pages are there";
    io.close(late.ticket);

    IoState resumed;
    auto old = resumed.resume(IoMode::kCached, false);
    resumed.close(old);
    EXPECT_EQ(resumed.open(Want::kDirectUnlessPages).ticket.mode, IoMode::kCached);
}

TEST(IoState, PassthroughIsPreparedThenSharedUntilTheLastClose) {
    IoState io;
    ASSERT_TRUE(io.may_begin_passthrough());
    io.begin_passthrough();
    EXPECT_EQ(io.state(), State::kPreparing);
    EXPECT_FALSE(io.may_begin_passthrough()) << "somebody prepares it";
    auto first = io.passthrough_ready(false);
    EXPECT_EQ(first.mode, IoMode::kPassthrough);
    EXPECT_EQ(io.state(), State::kPassthrough);
    EXPECT_FALSE(io.may_begin_passthrough());
    auto second = io.passthrough_ready(false);
    EXPECT_FALSE(io.wrote(first)) << "the kernel writes the file below and holds no pages of this one";
    io.flushed(first);
    io.close(first);
    io.close(first);
    EXPECT_EQ(io.state(), State::kPassthrough) << "the second has it";
    io.close(second);
    EXPECT_EQ(io.state(), State::kIdle);
    EXPECT_EQ(io.passthrough(), 0u);
    EXPECT_TRUE(io.may_begin_passthrough());
}

TEST(IoState, PassthroughThatIsRefusedLeavesNothing) {
    IoState io;
    io.begin_passthrough();
    io.passthrough_refused();
    EXPECT_EQ(io.state(), State::kIdle);
    auto r = io.open(Want::kCached);
    EXPECT_EQ(r.ticket.mode, IoMode::kCached);
    EXPECT_TRUE(r.keep_cache) << "nobody has written";
}

TEST(IoState, OnlyWritingInPassthroughMakesPagesWrong) {
    for (bool writable : {false, true}) {
        IoState io;
        io.begin_passthrough();
        auto lent = io.passthrough_ready(writable);
        io.close(lent);
        EXPECT_EQ(io.open(Want::kCached).keep_cache, !writable);
    }
}

// The kernel answers EIO to a passthrough open while it has any other; and of one that was flushed we cannot tell
// whether it knows it yet.
TEST(IoState, AnyHandleBarsPassthrough) {
    IoState io;
    auto cached = io.open(Want::kCached);
    EXPECT_FALSE(io.may_begin_passthrough());
    io.close(cached.ticket);
    EXPECT_TRUE(io.may_begin_passthrough());
    auto direct = io.open(Want::kDirect);
    EXPECT_FALSE(io.may_begin_passthrough());
    io.flushed(direct.ticket);
    ASSERT_EQ(io.state(), State::kIdle);
    EXPECT_FALSE(io.may_begin_passthrough()) << "its RELEASE has not come";
    io.close(direct.ticket);
    EXPECT_TRUE(io.may_begin_passthrough());
}

// A flushed direct handle that writes again binds again: beside cached ones it drops their pages, alone it makes the
// next open direct.
TEST(IoState, WhoWritesAgainAfterAFlushBindsAgain) {
    IoState io;
    auto w = io.open(Want::kDirect);
    io.flushed(w.ticket);
    EXPECT_EQ(io.state(), State::kIdle);
    EXPECT_FALSE(io.wrote(w.ticket)) << "nobody has pages";
    EXPECT_EQ(io.state(), State::kDirect);
    io.flushed(w.ticket);
    auto r = io.open(Want::kCached);
    EXPECT_TRUE(io.wrote(w.ticket));
    EXPECT_EQ(io.state(), State::kCached) << "handles keep their mode";
    EXPECT_EQ(io.open(Want::kCached).ticket.mode, IoMode::kCached);
    io.close(r.ticket);
}

TEST(IoState, HandlesOfAnEarlierProcessCountAsTheirMode) {
    IoState io;
    auto r = io.resume(IoMode::kDirect, false);
    EXPECT_EQ(io.state(), State::kIdle) << "a direct reader binds nobody";
    EXPECT_FALSE(io.may_begin_passthrough());
    auto w = io.resume(IoMode::kDirect, true);
    EXPECT_EQ(io.state(), State::kDirect);
    io.close(r);
    io.close(w);
    auto lent = io.resume(IoMode::kPassthrough, true);
    EXPECT_EQ(io.state(), State::kPassthrough);
    io.close(lent);
    EXPECT_FALSE(io.open(Want::kCached).keep_cache) << "the kernel may have written";
}

TEST(IoState, ClosingTwiceCountsOnce) {
    IoState io;
    auto a = io.open(Want::kCached);
    auto b = io.open(Want::kCached);
    io.close(a.ticket);
    io.close(a.ticket);
    EXPECT_EQ(io.cached(), 1u);
    io.close(b.ticket);
    EXPECT_EQ(io.cached(), 0u);
}

}  // namespace
}  // namespace coral::vfs
