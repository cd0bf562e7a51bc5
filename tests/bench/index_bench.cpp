// SPDX-License-Identifier: Apache-2.0
// The search for bases among many stored tensors: how long a query takes, and what the index holds in memory.
//
//     index_bench [--benchmark_…]
//
// Times are of single queries: the mean is the benchmark's time, median and 99th percentile are counters. "mixed":
// three element types and lengths from 64 KiB to 16 MiB, in families of 20 saves. "alike": strangers of one type and
// length, all of which a query must look at. "resident_mb": what a process that opens the index takes more, SQLite's
// own cache and 1,000 queries included.
#include <benchmark/benchmark.h>
#include <malloc.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "coral/base/hash.hpp"
#include "coral/base/os.hpp"
#include "repo/base_index.hpp"
#include "support/temp_dir.hpp"

namespace coral {
namespace {

using Clock = std::chrono::steady_clock;

constexpr codec::Hint kF32{4, codec::Hint::Class::kFloat, false, 12};
constexpr codec::Hint kBF16{2, codec::Hint::Class::kFloat, false, 11};
constexpr codec::Hint kF16{2, codec::Hint::Class::kFloat, false, 10};
constexpr std::size_t kSaves = 20;      // of a family
constexpr std::size_t kQueries = 1000;  // a round

double resident_mb() {
    malloc_trim(0);
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
        if (word != "VmRSS:") continue;
        double kilobytes = 0;
        status >> kilobytes;
        return kilobytes / 1024;
    }
    return 0;
}

double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Weights of many layers, each with a spread of its own. A tensor is a window of it: sketches read single elements at
// places that they count from the window's start, so that other windows are strangers.
const Buffer& weights(bool narrow) {
    constexpr std::size_t kElements = std::size_t{12} << 20;
    const auto make = [](bool as_bf16) {
        std::mt19937 random(1);
        std::normal_distribution<float> normal;
        std::vector<float> table(1 << 16);
        for (float& v : table) v = normal(random);
        Buffer out;
        out.reserve(kElements * (as_bf16 ? 2 : 4));
        float spread = 1;
        for (std::size_t i = 0; i < kElements; ++i) {
            if (i % 4096 == 0) spread = 0.02f * std::exp2(normal(random));
            auto bits = std::bit_cast<std::array<std::byte, 4>>(spread * table[random() % table.size()]);
            out.insert(out.end(), bits.begin() + (as_bf16 ? 2 : 0), bits.end());
        }
        return out;
    };
    static const Buffer wide = make(false), bf16 = make(true);
    return narrow ? bf16 : wide;
}

// A training step as a sketch shows it: low bits of every element are others.
repo::Sketch moved(repo::Sketch sketch, std::mt19937& random) {
    for (std::uint16_t& head : sketch.head) head ^= random() % 8;
    for (std::size_t i = 0; i < sketch.samples.size(); i += sketch.hint.width)
        sketch.samples[i] ^= static_cast<std::byte>(random() % 256);
    return sketch;
}

struct Tensor {
    SegmentId id;
    repo::Sketch sketch;
};

class Filled {
  public:
    Filled(std::size_t count, bool alike) {
        repo::BaseIndex index(real_os(), path(), false);
        std::mt19937 random(2);
        Tensor tensor;
        std::vector<std::uint64_t> anchors;
        const auto begin = Clock::now();
        for (std::size_t i = 0; i < count; ++i) {
            if (alike || i % kSaves == 0)
                tensor.sketch = fresh(random, alike, anchors);
            else
                tensor.sketch = moved(std::move(tensor.sketch), random);
            tensor.id = SegmentId::from(Sha256::of(std::as_bytes(std::span(&i, 1))));
            index.add(tensor.id, tensor.sketch, anchors, 0);
            if (i % (count / kQueries) == 0) known_.push_back(tensor);
        }
        index.flush();
        fill_seconds_ = seconds_since(begin);
    }

    std::string path() const { return dir_.file("bases.db"); }
    double fill_seconds() const { return fill_seconds_; }
    const std::vector<Tensor>& known() const { return known_; }  // some of those that are in it, oldest first

    static repo::Sketch fresh(std::mt19937& random, bool alike, std::vector<std::uint64_t>& anchors) {
        codec::Hint hint = alike ? kF32 : std::array{kF32, kF32, kF32, kBF16, kBF16, kBF16, kBF16, kF16}[random() % 8];
        const Buffer& all = weights(hint.width == 2);
        std::size_t length = alike ? 1u << 20 : (std::size_t{64} << 10) << random() % 9;
        std::size_t at = random() % ((all.size() - length) / 4096) * 4096 + random() % 1024 * hint.width;
        Bytes raw = Bytes(all).subspan(std::min(at, all.size() - length), length);
        anchors = repo::anchors_of(raw);
        return repo::sketch_of(raw, hint);
    }

  private:
    test::TempDir dir_;
    std::vector<Tensor> known_;
    double fill_seconds_ = 0;
};

// The next save of what is known, or strangers.
std::vector<repo::Sketch> queries(const Filled& filled, bool relatives, bool alike) {
    std::mt19937 random(3);
    std::vector<repo::Sketch> out;
    std::vector<std::uint64_t> anchors;
    for (std::size_t i = 0; i < kQueries; ++i) {
        const auto& known = filled.known();
        out.push_back(relatives ? moved(known[i % known.size()].sketch, random)
                                : Filled::fresh(random, alike, anchors));
    }
    std::shuffle(out.begin(), out.end(), random);
    return out;
}

// One of each kind at a time: a million rows take gigabytes of disk.
const Filled& filled(std::size_t count, bool alike) {
    static std::pair<std::size_t, bool> is;
    static std::unique_ptr<Filled> held;
    if (!held || is != std::pair{count, alike}) {
        held.reset();
        held = std::make_unique<Filled>(count, alike);
        is = {count, alike};
    }
    return *held;
}

void choose(benchmark::State& state, bool alike, bool relatives) {
    const auto count = static_cast<std::size_t>(state.range(0));
    const Filled& all = filled(count, alike);
    const std::vector<repo::Sketch> asked = queries(all, relatives, alike);
    const double before = resident_mb();
    const auto opened = Clock::now();
    repo::BaseIndex index(real_os(), all.path(), true);
    index.refresh();
    state.counters["open_ms"] = 1e3 * seconds_since(opened);
    std::vector<double> times;
    std::size_t found = 0;
    for (auto _ : state) {
        const repo::Sketch& sketch = asked[times.size() % asked.size()];
        const auto begin = Clock::now();
        found += index.choose(sketch, std::nullopt).has_value();
        times.push_back(seconds_since(begin));
        state.SetIterationTime(times.back());
    }
    state.counters["resident_mb"] = resident_mb() - before;
    state.counters["found"] = static_cast<double>(found) / static_cast<double>(times.size());
    state.counters["fill_us"] = 1e6 * all.fill_seconds() / static_cast<double>(count);
    std::sort(times.begin(), times.end());
    state.counters["p50_us"] = 1e6 * times[times.size() / 2];
    state.counters["p99_us"] = 1e6 * times[times.size() * 99 / 100];
}

void register_all() {
    for (std::int64_t count : {100'000, 1'000'000}) {
        for (bool alike : {false, true}) {
            for (bool relatives : {true, false}) {
                std::string name =
                    std::string("choose/") + (alike ? "alike/" : "mixed/") + (relatives ? "next_save" : "stranger");
                benchmark::RegisterBenchmark(name.c_str(), choose, alike, relatives)
                    ->Arg(count)
                    ->UseManualTime()
                    ->Unit(benchmark::kMicrosecond)
                    ->Iterations(2 * kQueries);
            }
        }
    }
}

}  // namespace
}  // namespace coral

int main(int argc, char** argv) {
    coral::register_all();
    benchmark::Initialize(&argc, argv);
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}
