// SPDX-License-Identifier: Apache-2.0
// copy_file_range(2): whole files and ranges that are copied as names, and what stays of them.
#include <sys/stat.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <random>
#include <thread>

#include "vfs_fixture.hpp"

namespace coral::test {
namespace {

constexpr std::uint64_t kUnit = 256u << 10;

class CopyTest : public VfsTest {
  protected:
    // As cp does: a new file, one copy_file_range after the other.
    void copy(const std::string& from, const std::string& to, std::uint64_t step) {
        auto in = c().open(from, O_RDONLY);
        auto out = c().create(to, O_WRONLY | O_EXCL);
        ASSERT_OK(in);
        ASSERT_OK(out);
        std::uint64_t at = 0;
        for (int i = 0; i < 1000; ++i) {
            auto done = fs_->copy_range(in->handle, at, out->handle, at, step);
            ASSERT_OK(done);
            if (*done == 0) break;
            at += *done;
        }
        ASSERT_OK(c().close(in->handle));
        ASSERT_OK(c().close(out->handle));
    }
    // One range, all of it.
    void copy_part(vfs::HandleId in, std::uint64_t from, vfs::HandleId out, std::uint64_t to, std::uint64_t length) {
        for (std::uint64_t done = 0; done < length;) {
            auto part = fs_->copy_range(in, from + done, out, to + done, length - done);
            ASSERT_OK(part);
            ASSERT_GT(*part, 0u);
            done += *part;
        }
    }
    // What the files below take on the disk.
    std::uint64_t staged_bytes() {
        std::uint64_t sum = 0;
        for (const auto& at : std::filesystem::recursive_directory_iterator(dir() + "/staging")) {
            struct stat st {};
            if (at.is_regular_file() && ::stat(at.path().c_str(), &st) == 0) sum += 512u * std::uint64_t(st.st_blocks);
        }
        return sum;
    }
    // As if the daemon had been killed here: the next one finds what is on the disk now.
    void crash(vfs::HandleId open) {
        ASSERT_NO_FATAL_FAILURE(copy_of_one_moment(temp_ / "as-it-was"));
        fs_->release(open);
        client_.reset();
        fs_.reset();
        repo_.reset();
        std::filesystem::remove_all(dir());
        std::filesystem::rename(temp_ / "as-it-was", dir());
        remount();
    }
    // Each file with what tells that it was changed. Ingest goes on meanwhile, so that some may go.
    std::map<std::string, std::array<std::int64_t, 4>> files() {
        std::map<std::string, std::array<std::int64_t, 4>> all;
        std::error_code gone;
        for (std::filesystem::recursive_directory_iterator at(dir(), gone), end; at != end; at.increment(gone)) {
            struct stat st {};
            if (::lstat(at->path().c_str(), &st) != 0) continue;
            all[at->path().string()] = {static_cast<std::int64_t>(st.st_ino), st.st_size, st.st_mtim.tv_sec,
                                        st.st_mtim.tv_nsec};
        }
        return all;
    }
    // A kill leaves all files as they were at one moment: what changed while it was copied is no such thing.
    void copy_of_one_moment(const std::filesystem::path& to) {
        for (int tries = 0; tries < 1000; ++tries) {
            const auto before = files();
            std::error_code error;
            std::filesystem::copy(dir(), to, std::filesystem::copy_options::recursive, error);
            if (!error && files() == before) return;
            std::filesystem::remove_all(to);
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
        FAIL() << "the repository does not come to rest";
    }
    // No byte of a chunk can be decoded any more; records are found all the same.
    void damage_packs() {
        for (const auto& at : std::filesystem::directory_iterator(dir() + "/packs")) {
            if (at.path().extension() != ".pack" || at.file_size() < (4u << 20)) continue;
            std::fstream file(at.path(), std::ios::in | std::ios::out | std::ios::binary);
            for (std::uint64_t place = 1u << 20; place + (1u << 20) < at.file_size(); place += 4096) {
                file.seekp(static_cast<std::streamoff>(place));
                file.write("damaged!", 8);
            }
        }
    }
    std::uint64_t pack_bytes() { return repo_->store().stats()->pack_bytes; }
};

TEST_F(CopyTest, WholeFilesAtRestAreCopiedAsNames) {
    std::string data = noise(40u << 20, 3);
    ASSERT_OK(c().put("branches/main/f", data));
    std::string root = "commits/" + commit().hex();
    std::uint64_t before = pack_bytes();
    copy("branches/main/f", "branches/main/g", 1u << 30);
    copy(root + "/f", "branches/main/h", 1u << 30);
    copy(root + "/f", "branches/main/steps", 16u << 20);  // the kernel cuts large requests
    settle();
    EXPECT_LT(pack_bytes() - before, 100'000u);
    for (const char* name : {"g", "h", "steps"}) {
        auto copied = c().cat(std::string("branches/main/") + name);
        ASSERT_OK(copied);
        EXPECT_TRUE(*copied == data) << name;
    }
    std::string again = "commits/" + commit().hex();
    EXPECT_TRUE(*c().cat(again + "/steps") == data);
    remount();
    EXPECT_TRUE(*c().cat("branches/main/steps") == data);
}

TEST_F(CopyTest, APrefixIsExactlyAPrefix) {
    std::string data = noise(20u << 20, 4);
    ASSERT_OK(c().put("branches/main/f", data));
    std::string root = "commits/" + commit().hex();
    auto in = c().open(root + "/f", O_RDONLY);
    auto out = c().create("branches/main/g", O_RDWR);
    ASSERT_OK(in);
    ASSERT_OK(out);
    std::uint64_t part = 10'000'001;
    EXPECT_VALUE(fs_->copy_range(in->handle, 0, out->handle, 0, part), part);
    EXPECT_TRUE(*c().read_all(out->handle) == data.substr(0, part));
    // A write in between: the next step must not bring the old bytes back.
    ASSERT_OK(c().write(out->handle, 5, "CHANGED"));
    auto rest = fs_->copy_range(in->handle, part, out->handle, part, data.size());
    EXPECT_VALUE(rest, data.size() - part);
    std::string expected = data;
    expected.replace(5, 7, "CHANGED");
    EXPECT_TRUE(*c().read_all(out->handle) == expected);
    ASSERT_OK(c().close(in->handle));
    ASSERT_OK(c().close(out->handle));
    EXPECT_TRUE(*c().cat("branches/main/g") == expected);
}

TEST_F(CopyTest, PartsAndFilesBeingWrittenAreCopiedByTheirBytes) {
    std::string data = noise(6'000'000, 5);
    auto in = c().create("branches/main/f", O_RDWR);
    ASSERT_OK(in);
    ASSERT_OK(c().write(in->handle, 0, data));
    auto out = c().create("branches/main/g", O_RDWR);
    ASSERT_OK(out);
    EXPECT_VALUE(fs_->copy_range(in->handle, 1000, out->handle, 10, 5'000'000), 5'000'000u);
    EXPECT_TRUE(*c().read(out->handle, 10, 5'000'000) == data.substr(1000, 5'000'000));
    EXPECT_VALUE(fs_->copy_range(in->handle, data.size(), out->handle, 0, 10), 0u);
    EXPECT_VALUE(fs_->copy_range(in->handle, 0, out->handle, 0, 0), 0u);
    EXPECT_ERRC(fs_->copy_range(in->handle, 0, in->handle, 5, 10), Errc::kInvalid);
    EXPECT_VALUE(fs_->copy_range(in->handle, 0, in->handle, 100, 10), 10u);
    EXPECT_VALUE(c().read(in->handle, 100, 10), data.substr(0, 10));
    ASSERT_OK(c().close(in->handle));
    ASSERT_OK(c().close(out->handle));
}

TEST_F(CopyTest, RangesOfWholeUnitsAreNotDecoded) {
    std::string data = noise(24u << 20, 6);
    ASSERT_OK(c().put("branches/main/f", data));
    std::string root = "commits/" + commit().hex();
    remount();
    damage_packs();
    auto in = c().open(root + "/f", O_RDONLY);
    auto out = c().create("branches/main/g", O_RDWR);
    ASSERT_OK(in);
    ASSERT_OK(out);
    ASSERT_FALSE(c().read(in->handle, 8u << 20, 4096)) << "the packs are damaged";
    // From an odd place to the beginning of a unit, and to the end of the file.
    copy_part(in->handle, (4u << 20) + 12345, out->handle, 2 * kUnit, (5u << 20) + 7);
    EXPECT_VALUE(c().read(out->handle, 0, 10), std::string(10, '\0'));
    EXPECT_EQ(fs_->read(out->handle, 2 * kUnit, std::as_writable_bytes(std::span(data).first(10))).ok(), false);
    EXPECT_LT(staged_bytes(), 100'000u);
    ASSERT_OK(c().close(in->handle));
    // Before it is complete: its ingest could only fail.
    ASSERT_OK(c().unlink("branches/main/g"));
    fs_->release(out->handle);
}

TEST_F(CopyTest, RangesFromSeveralFilesAreStoredAsWhatIsThere) {
    std::string a = noise(20u << 20, 7), b = noise(12u << 20, 8);
    ASSERT_OK(c().put("branches/main/a", a));
    ASSERT_OK(c().put("branches/main/b", b));
    std::string root = "commits/" + commit().hex();
    remount();  // nothing is staged any more
    const std::uint64_t before = pack_bytes();
    auto from_a = c().open(root + "/a", O_RDONLY), from_b = c().open("branches/main/b", O_RDONLY);
    ASSERT_OK(from_a);
    ASSERT_OK(from_b);
    auto out = c().create("branches/main/joined", O_WRONLY | O_EXCL);
    ASSERT_OK(out);
    copy_part(from_b->handle, 0, out->handle, 1000, b.size());
    copy_part(from_a->handle, 5'000'001, out->handle, 1000 + b.size(), 10'000'003);
    EXPECT_LT(staged_bytes(), 3u << 20) << "the ends of ranges only";
    ASSERT_OK(c().close(out->handle));
    ASSERT_OK(c().close(from_a->handle));
    ASSERT_OK(c().close(from_b->handle));
    const std::string expected = std::string(1000, '\0') + b + a.substr(5'000'001, 10'000'003);
    EXPECT_TRUE(*c().cat("branches/main/joined") == expected);
    std::string again = "commits/" + commit().hex();
    EXPECT_LT(pack_bytes() - before, 1u << 20);
    EXPECT_TRUE(*c().cat(again + "/joined") == expected);
    remount();
    EXPECT_TRUE(*c().cat("branches/main/joined") == expected);
    EXPECT_LT(staged_bytes(), 100'000u);
}

// What was linked stays hidden where a file was cut, also for the next process.
TEST_F(CopyTest, WhatWasCutDoesNotComeBack) {
    std::string data = noise(8u << 20, 9);
    ASSERT_OK(c().put("branches/main/f", data));
    std::string root = "commits/" + commit().hex();
    auto in = c().open(root + "/f", O_RDONLY);
    auto out = c().create("branches/main/g", O_RDWR);
    ASSERT_OK(in);
    ASSERT_OK(out);
    copy_part(in->handle, kUnit, out->handle, 0, 6u << 20);
    const std::uint64_t cut = 3 * kUnit + 1000;
    repo::SetAttributes size;
    size.size = cut;
    ASSERT_OK(c().set("branches/main/g", size));
    size.size = 7u << 20;
    ASSERT_OK(c().set("branches/main/g", size));
    std::string expected = data.substr(kUnit, cut) + std::string((7u << 20) - cut, '\0');
    EXPECT_TRUE(*c().read_all(out->handle) == expected);
    ASSERT_OK(c().write(out->handle, cut + 5000, "after the cut"));
    expected.replace(cut + 5000, 13, "after the cut");
    EXPECT_TRUE(*c().read_all(out->handle) == expected);
    ASSERT_OK(c().close(in->handle));
    crash(out->handle);  // it is not stored yet: it is not stored yet
    EXPECT_TRUE(*c().cat("branches/main/g") == expected);
}

// After a power cut a link may be there, and the size that the file got with it not: what is beyond the end is zeros
// when the file grows.
TEST_F(CopyTest, LinksEndWhereTheFileDoes) {
    std::string data = noise(8u << 20, 11);
    ASSERT_OK(c().put("branches/main/f", data));
    std::string root = "commits/" + commit().hex();
    remount();
    for (const std::uint64_t from : {std::uint64_t{0}, kUnit}) {
        auto in = c().open(root + "/f", O_RDONLY);
        const std::string name = "branches/main/g" + std::to_string(from);
        auto out = c().create(name, O_RDWR);
        ASSERT_OK(in);
        ASSERT_OK(out);
        copy_part(in->handle, from, out->handle, 0, 4u << 20);
        ASSERT_OK(c().close(in->handle));
        const std::uint64_t kept = 5 * kUnit + 77;
        std::size_t cut = 0;
        for (const auto& at : std::filesystem::recursive_directory_iterator(dir() + "/staging")) {
            if (!at.is_regular_file() || at.file_size() != 4u << 20) continue;
            std::filesystem::resize_file(at.path(), kept);
            ++cut;
        }
        ASSERT_EQ(cut, 1u);
        crash(out->handle);
        auto again = c().open(name, O_RDWR);
        ASSERT_OK(again);
        ASSERT_OK(c().write(again->handle, 4u << 20, "end"));
        EXPECT_TRUE(*c().read_all(again->handle) ==
                    data.substr(from, kept) + std::string((4u << 20) - kept, '\0') + "end");
        ASSERT_OK(c().close(again->handle));
        settle();
    }
}

// The file that a range is of may lose its last name before the range was stored anew.
class CopyAndCollect : public CopyTest {
  protected:
    void SetUp() override {
        CopyTest::SetUp();
        ASSERT_OK(c().put("branches/main/keep", "x"));
        commit();
        ASSERT_OK(c().put("branches/main/f", data_));
        remount();  // nobody holds what was ingested a moment ago
        auto in = c().open("branches/main/f", O_RDONLY);
        auto out = c().create("branches/main/g", O_RDWR);
        ASSERT_OK(in);
        ASSERT_OK(out);
        copy_part(in->handle, 77, out->handle, 0, 8u << 20);
        ASSERT_OK(c().close(in->handle));
        out_ = out->handle;
    }
    // How many bytes went.
    std::uint64_t collect() {
        repo::GcOptions all;
        all.prune_before = std::numeric_limits<std::int64_t>::max();
        auto done = repo_->gc(all);
        EXPECT_OK(done);
        return done ? done->packs.freed_bytes() : 0;
    }
    const std::string data_ = noise(9u << 20, 10);
    vfs::HandleId out_ = 0;
};

TEST_F(CopyAndCollect, WhatIsLinkedStays) {
    ASSERT_OK(c().unlink("branches/main/f"));
    collect();
    crash(out_);
    EXPECT_TRUE(*c().cat("branches/main/g") == data_.substr(77, 8u << 20));
}

TEST_F(CopyAndCollect, WhatIsLinkedInAnOpenFileWithoutANameStays) {
    ASSERT_OK(c().unlink("branches/main/g"));
    ASSERT_OK(c().unlink("branches/main/f"));
    collect();
    EXPECT_TRUE(*c().read_all(out_) == data_.substr(77, 8u << 20));
    ASSERT_OK(c().close(out_));
    EXPECT_GT(collect(), 8u << 20) << "nothing leads to it any more";
}

// Links, writes, cuts, closes and new processes, in any order, beside a model.
class CopyModel : public CopyTest {
  protected:
    void SetUp() override {
        CopyTest::SetUp();
        for (std::size_t i = 0; i < 3; ++i) {
            sources_.push_back(noise((5u << 20) + 70'000 * i, 20 + i));
            ASSERT_OK(c().put("branches/main/s" + std::to_string(i), sources_[i]));
        }
        root_ = "commits/" + commit().hex();
    }
    std::uint64_t below(std::uint64_t end) { return dice_() % end; }
    // Half of them at the beginning of a unit.
    std::uint64_t place(std::uint64_t end) { return below(2) ? below(end) : below(end) / kUnit * kUnit; }

    void open_target() {
        auto opened = c().open("branches/main/t", O_RDWR);
        if (!opened) opened = c().create("branches/main/t", O_RDWR);
        ASSERT_OK(opened);
        target_ = opened->handle;
    }
    void link() {
        const std::size_t which = below(3);
        auto in = c().open((below(2) ? root_ : std::string("branches/main")) + "/s" + std::to_string(which), O_RDONLY);
        ASSERT_OK(in);
        const std::uint64_t from = place(sources_[which].size()), to = place(10u << 20);
        const std::uint64_t length = std::min(1 + below(4u << 20), sources_[which].size() - from);
        copy_part(in->handle, from, target_, to, length);
        if (model_.size() < to + length) model_.resize(to + length, '\0');
        model_.replace(to, length, sources_[which], from, length);
        ASSERT_OK(c().close(in->handle));
    }
    void write() {
        const std::string bytes = noise(1 + below(2) * below(600'000), dice_());
        const std::uint64_t to = place(10u << 20);
        ASSERT_OK(c().write(target_, to, bytes));
        if (model_.size() < to + bytes.size()) model_.resize(to + bytes.size(), '\0');
        model_.replace(to, bytes.size(), bytes);
    }
    void cut() {
        repo::SetAttributes size;
        size.size = place(11u << 20);
        ASSERT_OK(c().set("branches/main/t", size));
        model_.resize(*size.size, '\0');
    }
    void check() {
        auto all = c().read_all(target_);
        ASSERT_OK(all);
        ASSERT_EQ(all->size(), model_.size());
        const auto differs = std::mismatch(all->begin(), all->end(), model_.begin());
        ASSERT_TRUE(differs.first == all->end()) << "at " << differs.first - all->begin();
    }

    std::vector<std::string> sources_;
    std::string root_, model_;
    vfs::HandleId target_ = 0;
    std::mt19937_64 dice_;
};

TEST_F(CopyModel, InAnyOrder) {
    const auto seed = std::random_device{}();
    SCOPED_TRACE("seed " + std::to_string(seed));
    dice_.seed(seed);
    open_target();
    for (int step = 0; step < 250 && !HasFatalFailure(); ++step) {
        const std::uint64_t what = below(20);
        if (what < 8) {
            link();
        } else if (what < 14) {
            write();
        } else if (what < 17) {
            cut();
        } else {
            if (what < 19) {
                ASSERT_OK(c().close(target_));
                if (what == 18) settle();
            } else {
                crash(target_);
            }
            open_target();
        }
        if (step % 3 == 0) check();
    }
    check();
    ASSERT_OK(c().close(target_));
    const std::string again = "commits/" + commit().hex();
    EXPECT_TRUE(*c().cat(again + "/t") == model_);
}

// Each writer has every eighth unit; between them ranges are linked. Nobody's bytes are lost.
TEST_F(CopyModel, BesideWriters) {
    open_target();
    ASSERT_OK(c().write(target_, 8 * 8 * kUnit - 1, "."));
    std::vector<std::thread> writers;
    std::atomic<bool> failed{false};
    for (std::uint64_t me = 0; me < 2; ++me) {
        writers.emplace_back([&, me] {
            for (std::uint64_t round = 0; round < 40; ++round) {
                for (std::uint64_t unit = me; unit < 64; unit += 8) {
                    const std::string bytes(5000, static_cast<char>('a' + round % 26));
                    if (!c().write(target_, unit * kUnit + 100, bytes)) failed = true;
                }
            }
        });
    }
    auto in = c().open(root_ + "/s0", O_RDONLY);
    ASSERT_OK(in);
    for (int round = 0; round < 40; ++round) {
        for (std::uint64_t block = 0; block < 8; ++block) {
            copy_part(in->handle, block * 1000, target_, (block * 8 + 2) * kUnit, 6 * kUnit);
        }
    }
    for (std::thread& writer : writers) writer.join();
    EXPECT_FALSE(failed);
    ASSERT_OK(c().close(in->handle));
    ASSERT_OK(c().close(target_));
    auto all = c().cat("branches/main/t");
    ASSERT_OK(all);
    for (std::uint64_t unit = 0; unit < 64; ++unit) {
        if (unit % 8 < 2) {
            EXPECT_TRUE(all->substr(unit * kUnit + 100, 5000) == std::string(5000, 'a' + 39 % 26)) << unit;
        } else {
            const std::uint64_t block = unit / 8, from = block * 1000 + (unit - block * 8 - 2) * kUnit;
            EXPECT_TRUE(all->substr(unit * kUnit, kUnit) == sources_[0].substr(from, kUnit)) << unit;
        }
    }
}

// The unit in which a range ends is the range's only if nobody has made the file longer meanwhile.
TEST_F(CopyModel, BesideSomebodyWhoAppends) {
    const std::uint64_t end = 4 * kUnit + 1000;
    const std::string appended = noise(1u << 20, 99);
    auto in = c().open(root_ + "/s0", O_RDONLY);
    ASSERT_OK(in);
    for (int round = 0; round < 150; ++round) {
        auto out = c().create("branches/main/t" + std::to_string(round), O_RDWR);
        ASSERT_OK(out);
        std::atomic<bool> go{false};
        std::thread appender([&] {
            while (!go) {
            }
            for (int i = 0; i < round % 50 * 500; ++i) (void)go.load();
            EXPECT_OK(c().write(out->handle, end + 2000, appended));
        });
        go = true;
        copy_part(in->handle, 0, out->handle, 0, end);
        appender.join();
        EXPECT_TRUE(*c().read(out->handle, end + 2000, appended.size()) == appended);
        EXPECT_TRUE(*c().read(out->handle, 0, end) == sources_[0].substr(0, end));
        ASSERT_OK(c().close(out->handle));
    }
    ASSERT_OK(c().close(in->handle));
}

}  // namespace
}  // namespace coral::test
