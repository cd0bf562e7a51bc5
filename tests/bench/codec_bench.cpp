// SPDX-License-Identifier: Apache-2.0
// Encode and decode in memory, on one core.
//
//     codec_bench FILE [BASE] [ROUNDS]    tensors of FILE, as differences to those of BASE with the same names; one
//     line
//                                         of JSON, speeds in GB of raw bytes per second of processor time (medians)
//     codec_bench [--benchmark_…]         Google Benchmark over a normal distribution, which tells speed only
//
// Encoding includes verifying, decoding includes the checksums: what a store pays.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <random>

#include "codec/kernels.hpp"
#include "coral/base/os.hpp"
#include "coral/codec/segment_codec.hpp"
#include "coral/formats/layout.hpp"

namespace coral {
namespace {

struct Pair {
    codec::Hint hint;
    Buffer raw, base;
};

class FileBytes final : public formats::ByteSource {
  public:
    explicit FileBytes(std::string bytes) : bytes_(std::move(bytes)) {}
    std::uint64_t size() const override { return bytes_.size(); }
    Status read_at(std::uint64_t offset, MutableBytes out) const override {
        std::memcpy(out.data(), bytes_.data() + offset, out.size());
        return {};
    }
    Bytes part(std::uint64_t offset, std::uint64_t length) const {
        return as_bytes(bytes_).subspan(static_cast<std::size_t>(offset), static_cast<std::size_t>(length));
    }

  private:
    std::string bytes_;
};

codec::Hint hint_of(formats::Dtype dtype) {
    codec::Hint hint;
    hint.width = static_cast<std::uint8_t>(std::max(1u, formats::dtype_width(dtype)));
    hint.element = formats::dtype_is_float(dtype) ? codec::Hint::Class::kFloat : codec::Hint::Class::kInteger;
    hint.detail = static_cast<std::uint8_t>(dtype);
    return hint;
}

[[noreturn]] void fail(const std::string& why) {
    std::fprintf(stderr, "error: %s\n", why.c_str());
    std::exit(2);
}

FileBytes load(const char* path) {
    auto bytes = read_file(real_os(), path, std::uint64_t{8} << 30);
    if (!bytes) fail(bytes.error().message);
    return FileBytes(std::move(*bytes));
}

std::vector<formats::Tensor> tensors_of(const FileBytes& file, const char* path) {
    auto layout = formats::parse_layout(file);
    if (!layout || !*layout) fail(std::string(path) + ": no format whose tensors are known");
    return (*layout)->tensors;
}

// Segments as the store cuts them. Tensors below 4 KiB are left out: the store puts those into groups.
std::vector<Pair> from_files(const char* file, const char* base) {
    FileBytes now = load(file), before = base ? load(base) : FileBytes({});
    std::map<std::string, formats::Tensor> known;
    if (base) {
        for (const auto& t : tensors_of(before, base)) known[t.name] = t;
    }
    std::vector<Pair> pairs;
    for (const auto& t : tensors_of(now, file)) {
        if (t.length < 4096) continue;
        auto found = known.find(t.name);
        bool usable = found != known.end() && found->second.dtype == t.dtype;
        for (std::uint64_t at = 0; at < t.length; at += codec::kMaxSegment) {
            Pair pair{hint_of(t.dtype), {}, {}};
            Bytes raw = now.part(t.offset + at, std::min<std::uint64_t>(t.length - at, codec::kMaxSegment));
            pair.raw.assign(raw.begin(), raw.end());
            if (usable && at < found->second.length) {
                auto length = std::min<std::uint64_t>(found->second.length - at, raw.size());
                Bytes other = before.part(found->second.offset + at, length);
                pair.base.assign(other.begin(), other.end());
            }
            pairs.push_back(std::move(pair));
        }
    }
    if (pairs.empty()) fail(std::string(file) + ": no tensor of 4 KiB or more");
    return pairs;
}

std::vector<Pair> made_up() {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    Pair pair{hint_of(formats::Dtype::kF32), {}, {}};
    for (std::size_t i = 0; i < (4u << 20); ++i) {
        float b = 0.05f * normal(random), a = b + 1e-5f * normal(random);
        for (auto [out, v] : {std::pair{&pair.raw, a}, {&pair.base, b}}) {
            auto bytes = std::bit_cast<std::array<std::byte, 4>>(v);
            out->insert(out->end(), bytes.begin(), bytes.end());
        }
    }
    return {pair};
}

const std::vector<Pair>& pairs() {
    static const std::vector<Pair> all = made_up();
    return all;
}

std::vector<codec::Base> bases_of(const Pair& pair, bool delta) {
    if (!delta || pair.base.empty()) return {};
    return {{SegmentId{}, 0, 0, pair.base}};
}

void encode(benchmark::State& state, bool delta) {
    std::size_t in = 0, out = 0;
    for (auto _ : state) {
        for (const Pair& pair : pairs()) {
            auto e = codec::encode_segment(pair.raw, pair.hint, bases_of(pair, delta));
            in += pair.raw.size();
            out += e->payload.size() + e->header.tables.size();
        }
    }
    state.SetBytesProcessed(static_cast<std::int64_t>(in));
    state.counters["ratio"] = static_cast<double>(out) / static_cast<double>(in);
}

// Every chunk into `out`, which is checked against the raw bytes when `compare`; false when one does not decode.
bool decode_all(const codec::Encoded& coded, const Pair& pair, MutableBytes out, bool compare = false) {
    const codec::SegmentHeader& h = coded.header;
    auto base = [&](std::uint8_t, std::uint64_t begin, MutableBytes part) -> Status {
        auto there = begin < pair.base.size() ? std::min(part.size(), pair.base.size() - begin) : 0;
        if (there) std::memcpy(part.data(), pair.base.data() + begin, there);
        std::memset(part.data() + there, 0, part.size() - there);
        return {};
    };
    std::size_t at = 0;
    for (std::uint32_t c = 0; c < h.chunk_count(); ++c) {
        auto begin = h.chunk_stored_begin(c);
        Bytes stored = Bytes(coded.payload).subspan(begin, h.chunks[c].stored_end - begin);
        MutableBytes part = out.first(h.chunk_raw_length(c));
        if (!codec::decode_chunk(h, c, stored, base, part)) return false;
        if (compare && std::memcmp(part.data(), pair.raw.data() + at, part.size()) != 0) return false;
        at += part.size();
    }
    return at == pair.raw.size();
}

void decode(benchmark::State& state, bool delta) {
    std::vector<codec::Encoded> coded;
    for (const Pair& pair : pairs())
        coded.push_back(*codec::encode_segment(pair.raw, pair.hint, bases_of(pair, delta)));
    Buffer out(codec::kChunkSize);
    std::size_t bytes = 0;
    for (auto _ : state) {
        for (std::size_t i = 0; i < coded.size(); ++i) {
            if (!decode_all(coded[i], pairs()[i], out)) state.SkipWithError("does not decode");
            bytes += pairs()[i].raw.size();
        }
    }
    state.SetBytesProcessed(static_cast<std::int64_t>(bytes));
}

double processor_seconds() {
    timespec now{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

double median(std::vector<double> values) {
    auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

// One round more than asked for: the first pays for memory that is touched for the first time.
int measure(const char* file, const char* base, int rounds) {
    std::vector<Pair> all = from_files(file, base);
    std::size_t raw = 0, stored = 0;
    for (const Pair& pair : all) raw += pair.raw.size();
    std::vector<double> encoding, decoding;
    Buffer out(codec::kChunkSize);
    bool exact = true;
    for (int round = 0; round <= rounds; ++round) {
        std::vector<codec::Encoded> coded;
        double begin = processor_seconds();
        for (const Pair& pair : all) {
            auto e = codec::encode_segment(pair.raw, pair.hint, bases_of(pair, true));
            if (!e) fail(e.error().message);
            coded.push_back(std::move(*e));
        }
        double middle = processor_seconds();
        for (std::size_t i = 0; i < all.size(); ++i) exact = decode_all(coded[i], all[i], out, round == 0) && exact;
        double end = processor_seconds();
        if (round > 0) {
            encoding.push_back(middle - begin);
            decoding.push_back(end - middle);
            continue;
        }
        for (const codec::Encoded& e : coded) stored += e.payload.size() + e.header.tables.size();
    }
    double gigabytes = static_cast<double>(raw) / 1e9;
    std::printf(
        "{\"schema\": \"coral.codec-bench/1\", \"path\": \"%s\", \"raw_bytes\": %zu, \"coded_bytes\": %zu, "
        "\"encode_gbs\": %.4f, \"decode_gbs\": %.4f, \"rounds\": %d, \"exact\": %s}\n",
        codec::kernels().name, raw, stored, gigabytes / median(encoding), gigabytes / median(decoding), rounds,
        exact ? "true" : "false");
    return exact ? 0 : 1;
}

BENCHMARK_CAPTURE(encode, alone, false)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, from_base, true)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(decode, alone, false)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(decode, from_base, true)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace coral

int main(int argc, char** argv) {
    if (argc > 1 && argv[1][0] != '-') {
        int rounds = 3;
        std::string_view last = argv[argc - 1];
        bool counted = argc > 2 && std::from_chars(last.data(), last.data() + last.size(), rounds).ptr == last.end();
        const char* base = argc - (counted ? 1 : 0) > 2 ? argv[2] : nullptr;
        return coral::measure(argv[1], base, std::clamp(rounds, 1, 1000));
    }
    benchmark::AddCustomContext("codec path", coral::codec::kernels().name);
    benchmark::Initialize(&argc, argv);
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}
