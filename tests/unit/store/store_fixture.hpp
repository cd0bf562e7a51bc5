// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <boost/filesystem.hpp>

#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "coral/base/hash.hpp"
#include "coral/store/store.hpp"
#include "support/failing_os.hpp"
#include "support/temp_dir.hpp"

namespace coral::store::test {

// Bytes that zstd cannot shrink, told apart by `seed`.
inline Buffer noise(std::size_t size, std::uint64_t seed) {
    std::mt19937_64 random(seed * 7919 + size);
    Buffer out(size);
    std::size_t i = 0;
    for (; i + 8 <= size; i += 8) store_le<std::uint64_t>(out.data() + i, random());
    for (; i < size; ++i) out[i] = static_cast<std::byte>(random());
    return out;
}

inline SegmentId segment_id(Bytes raw) {
    return SegmentId::from(Sha256::of(raw));
}

#define ASSERT_OK(expr)                                             \
    do {                                                            \
        auto&& assert_ok_ = (expr);                                 \
        ASSERT_TRUE(assert_ok_.ok()) << assert_ok_.error().message; \
    } while (false)
#define EXPECT_OK(expr)                                             \
    do {                                                            \
        auto&& expect_ok_ = (expr);                                 \
        EXPECT_TRUE(expect_ok_.ok()) << expect_ok_.error().message; \
    } while (false)

class StoreTest : public ::testing::Test {
  protected:
    static StoreOptions small_cache() {
        StoreOptions options;
        options.cache_bytes = 64u << 20;
        return options;
    }
    void SetUp() override { create(); }
    void create(Os& os = real_os()) {
        auto made = Store::create(os, dir_.path(), repo_, options_);
        ASSERT_TRUE(made.ok()) << made.error().message;
        store_ = std::move(*made);
    }
    void reopen(Os& os = real_os()) {
        store_.reset();
        store_ = open_another(os);
    }
    std::unique_ptr<Store> open_another(Os& os = real_os()) {
        auto opened = Store::open(os, dir_.path(), repo_, options_);
        EXPECT_TRUE(opened.ok()) << opened.error().message;
        return opened ? std::move(*opened) : nullptr;
    }

    static SegmentId put(Store& store, Bytes raw, codec::Hint hint = {}, std::vector<BaseCandidate> bases = {}) {
        SegmentId id = segment_id(raw);
        auto put = store.put_segment(id, raw, hint, bases);
        EXPECT_TRUE(put.ok()) << put.error().message;
        return id;
    }
    SegmentId put(Bytes raw) { return put(*store_, raw); }

    static void expect_segment(Store& store, Bytes raw) {
        auto got = store.read_segment(segment_id(raw));
        ASSERT_TRUE(got.ok()) << got.error().message;
        EXPECT_TRUE(std::equal(got->begin(), got->end(), raw.begin(), raw.end()));
    }

    // Cuts `content` into segments and stores it as a file.
    static FileRecord put_file(Store& store, Bytes content, std::uint32_t piece = codec::kMaxSegment) {
        FileRecord record;
        record.id = FileId::from(Sha256::of(content));
        record.size = content.size();
        for (std::size_t at = 0; at < content.size(); at += piece) {
            Bytes part = content.subspan(at, std::min<std::size_t>(piece, content.size() - at));
            SegmentId id = put(store, part);
            auto known = std::find(record.segments.begin(), record.segments.end(), id);
            auto index = static_cast<std::uint32_t>(known - record.segments.begin());
            if (known == record.segments.end()) record.segments.push_back(id);
            record.extents.push_back({index, 0, part.size()});
        }
        auto put = store.put_file(record);
        EXPECT_TRUE(put.ok()) << put.error().message;
        return record;
    }
    static void expect_file(Store& store, Bytes content) {
        auto record = store.file(FileId::from(Sha256::of(content)));
        ASSERT_TRUE(record.ok()) << record.error().message;
        Buffer got(content.size() + 10);
        auto length = store.read_file(**record, 0, got);
        ASSERT_TRUE(length.ok()) << length.error().message;
        ASSERT_EQ(*length, content.size());
        got.resize(*length);
        EXPECT_TRUE(std::equal(got.begin(), got.end(), content.begin()));
    }

    // ---- collecting
    static void keep_file(LiveSet& live, const FileRecord& record) {
        live.add(Kind::kFile, AnyId::from(record.id));
        for (const SegmentId& id : record.segments) live.add(Kind::kSegment, AnyId::from(id));
    }
    CollectReport collect(LiveSet live, CollectOptions options = {}) {
        options.patience = std::chrono::milliseconds(2000);
        store_->seal().ok();
        auto done = store_->collect(live, options);
        EXPECT_TRUE(done.ok()) << done.error().message;
        return done ? std::move(*done) : CollectReport{};
    }
    static void expect_clean(Store& store) {
        auto problems = store.verify(true, {});
        ASSERT_OK(problems);
        for (const Problem& p : *problems) EXPECT_TRUE(p.if_used) << p.what;
    }
    static bool has_file(Store& store, const FileRecord& record) {
        auto there = store.contains(Kind::kFile, AnyId::from(record.id));
        return there && *there;
    }

    std::vector<std::string> packs() const {
        std::vector<std::string> found;
        for (const auto& entry : boost::filesystem::directory_iterator(dir_.file("packs"))) {
            found.push_back(entry.path().string());
        }
        std::sort(found.begin(), found.end());
        return found;
    }
    static std::string slurp(const std::string& path) {
        std::ifstream in(path, std::ios::binary);
        return {std::istreambuf_iterator<char>(in), {}};
    }
    static void spill(const std::string& path, const std::string& text) {
        boost::system::error_code ignored;
        boost::filesystem::permissions(path, boost::filesystem::owner_read | boost::filesystem::owner_write, ignored);
        std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
    }

    coral::test::TempDir dir_;
    Uuid repo_ = Uuid::random();
    StoreOptions options_ = small_cache();
    coral::test::FailingOs os_;  // outlives the store
    std::unique_ptr<Store> store_;
};

}  // namespace coral::store::test
