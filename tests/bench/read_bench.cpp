// SPDX-License-Identifier: Apache-2.0
// Random reads of 4 KiB from stored files whose chunks have not been decoded yet.
//
//     read_bench [ROUNDS] FILE…      stores the files in this order in a repository that goes away with the program,
//     and
//                                    prints a row for each depth: microseconds a read, median and 99th percentile
//
// Each chunk of each file is read once a round, at a random place, in random order, from a store that has just been
// opened; the packs are in the page cache. The first read of a segment also finds its record and reads its header.
// "base decoded": the bases' chunks are in the cache, as they are after reading the save before.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <string_view>

#include "coral/base/os.hpp"
#include "coral/repo/ingest.hpp"
#include "repo/base_index.hpp"
#include "support/temp_dir.hpp"

namespace coral {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t kRead = 4096;

[[noreturn]] void fail(const std::string& why) {
    std::fprintf(stderr, "error: %s\n", why.c_str());
    std::exit(2);
}

template <class T>
T must(Result<T> result) {
    if (!result) fail(result.error().message);
    return std::move(*result);
}

struct Read {
    std::size_t file;
    std::uint64_t offset;
    SegmentId segment;
    unsigned depth;
};

struct Times {
    std::vector<double> first, later;  // of a segment

    static void print(const char* what, unsigned depth, std::vector<double>& times) {
        if (times.empty()) return;
        std::sort(times.begin(), times.end());
        std::printf("depth %u  %-36s %7zu reads  median %7.1f us  p99 %7.1f us\n", depth, what, times.size(),
                    times[times.size() / 2], times[times.size() * 99 / 100]);
    }
};

class Reads {
  public:
    explicit Reads(const std::vector<std::string>& paths) {
        store_ = must(store::Store::create(real_os(), dir_.path(), repo_, {}));
        repo::BaseIndex index(real_os(), dir_.file("bases.db"), false);
        ThreadPool pool("bench", 2);
        repo::Ingestor ingestor(*store_, index, pool, 4);
        repo::BaseMap bases;
        for (const std::string& path : paths) {
            std::shared_ptr<File> file = must(real_os().open(path, OpenMode::kRead));
            repo::FileSource source(file, must(real_os().stat(path)).size);
            files_.push_back(must(ingestor.ingest(source, bases)).file);
        }
        if (Status synced = store_->sync(); !synced) fail(synced.error().message);
        for (std::size_t i = 0; i < files_.size(); ++i) find_chunks(i);
    }

    void run(int rounds, bool bases_decoded) {
        std::map<unsigned, Times> times;
        std::mt19937 random(1);
        for (int round = 0; round < rounds; ++round) {
            for (std::size_t file = 0; file < files_.size(); ++file) one_round(file, bases_decoded, random, times);
        }
        const std::string state = bases_decoded ? ", base decoded" : "";
        for (auto& [depth, of_depth] : times) {
            Times::print(("first read of a segment" + state).c_str(), depth, of_depth.first);
            Times::print(("later ones" + state).c_str(), depth, of_depth.later);
        }
    }

  private:
    // Every chunk that a read of 4 KiB fits into.
    void find_chunks(std::size_t file) {
        auto record = must(store_->file(files_[file]));
        std::uint64_t position = 0;
        for (const store::Extent& e : record->extents) {
            if (e.segment != store::Extent::kInline && e.offset == 0) {
                const SegmentId& id = record->segments[e.segment];
                const store::SegmentInfo info = must(store_->segment_info(id));
                for (std::uint64_t at = 0; at + codec::kChunkSize <= e.length && !info.grouped; at += codec::kChunkSize)
                    reads_.push_back({file, position + at, id, info.depth});
            }
            position += e.length;
        }
    }

    void one_round(std::size_t file, bool bases_decoded, std::mt19937& random, std::map<unsigned, Times>& times) {
        store_.reset();
        store_ = must(store::Store::open(real_os(), dir_.path(), repo_, {}));
        std::vector<Read> order;
        Buffer out(kRead);
        for (const Read& read : reads_) {
            if (read.file == file) order.push_back(read);
            if (!bases_decoded || read.file >= file) continue;
            must(store_->read_file(*must(store_->file(files_[read.file])), read.offset, out));
        }
        std::shuffle(order.begin(), order.end(), random);
        auto record = must(store_->file(files_[file]));
        std::set<SegmentId> seen;
        for (const Read& read : order) {
            const std::uint64_t offset = read.offset + random() % (codec::kChunkSize - kRead);
            const auto begin = Clock::now();
            must(store_->read_file(*record, offset, out));
            const double us = std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
            Times& of_depth = times[read.depth];
            (seen.insert(read.segment).second ? of_depth.first : of_depth.later).push_back(us);
        }
    }

    test::TempDir dir_;
    const Uuid repo_ = Uuid::random();
    std::unique_ptr<store::Store> store_;
    std::vector<FileId> files_;
    std::vector<Read> reads_;
};

}  // namespace
}  // namespace coral

int main(int argc, char** argv) {
    int rounds = 5, first = 1;
    std::string_view number = argc > 1 ? argv[1] : "";
    if (std::from_chars(number.data(), number.data() + number.size(), rounds).ptr == number.end() && argc > 2) ++first;
    if (first >= argc) coral::fail("usage: read_bench [ROUNDS] FILE...");
    coral::Reads reads(std::vector<std::string>(argv + first, argv + argc));
    reads.run(std::max(rounds, 1), false);
    reads.run(std::max(rounds, 1), true);
    return 0;
}
