// SPDX-License-Identifier: Apache-2.0
// Encode and decode of real tensors, on every path. Files: CORAL_BENCH_FILE (and CORAL_BENCH_BASE for differences),
// both of a known format with the same tensor names; without them a normal distribution stands in, which tells speed
// only.
#include <benchmark/benchmark.h>

#include <bit>
#include <cstdlib>
#include <cstring>
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

std::vector<Pair> from_files(const char* file, const char* base) {
    auto load = [](const char* path) -> FileBytes {
        auto bytes = read_file(real_os(), path, std::uint64_t{8} << 30);
        if (!bytes) {
            std::fprintf(stderr, "%s\n", bytes.error().message.c_str());
            std::exit(1);
        }
        return FileBytes(std::move(*bytes));
    };
    FileBytes now = load(file), before = base ? load(base) : FileBytes({});
    auto layout = formats::parse_layout(now), old = formats::parse_layout(before);
    std::map<std::string, formats::Tensor> known;
    if (old && *old) {
        for (const auto& t : (*old)->tensors) known[t.name] = t;
    }
    std::vector<Pair> pairs;
    if (!layout || !*layout) return pairs;
    for (const auto& t : (*layout)->tensors) {
        std::uint64_t length = std::min<std::uint64_t>(t.length, codec::kMaxSegment);
        if (length < 4096) continue;
        Pair pair{hint_of(t.dtype), {}, {}};
        Bytes raw = now.part(t.offset, length);
        pair.raw.assign(raw.begin(), raw.end());
        auto found = known.find(t.name);
        if (found != known.end() && found->second.dtype == t.dtype && found->second.length >= length) {
            Bytes other = before.part(found->second.offset, length);
            pair.base.assign(other.begin(), other.end());
        }
        pairs.push_back(std::move(pair));
    }
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
    static const std::vector<Pair> all = [] {
        const char* file = std::getenv("CORAL_BENCH_FILE");
        return file ? from_files(file, std::getenv("CORAL_BENCH_BASE")) : made_up();
    }();
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

void decode(benchmark::State& state, bool delta) {
    std::vector<codec::Encoded> coded;
    for (const Pair& pair : pairs())
        coded.push_back(*codec::encode_segment(pair.raw, pair.hint, bases_of(pair, delta)));
    Buffer out(codec::kChunkSize);
    std::size_t bytes = 0;
    for (auto _ : state) {
        for (std::size_t i = 0; i < coded.size(); ++i) {
            const codec::SegmentHeader& h = coded[i].header;
            auto base = [&](std::uint8_t, std::uint64_t begin, MutableBytes part) -> Status {
                std::memcpy(part.data(), pairs()[i].base.data() + begin, part.size());
                return {};
            };
            for (std::uint32_t c = 0; c < h.chunk_count(); ++c) {
                Bytes stored = Bytes(coded[i].payload)
                                   .subspan(h.chunk_stored_begin(c), h.chunks[c].stored_end - h.chunk_stored_begin(c));
                MutableBytes part = MutableBytes(out).first(h.chunk_raw_length(c));
                if (!codec::decode_chunk(h, c, stored, base, part)) state.SkipWithError("does not decode");
                bytes += part.size();
            }
        }
    }
    state.SetBytesProcessed(static_cast<std::int64_t>(bytes));
}

BENCHMARK_CAPTURE(encode, alone, false)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, from_base, true)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(decode, alone, false)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(decode, from_base, true)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace coral

int main(int argc, char** argv) {
    benchmark::AddCustomContext("codec path", coral::codec::kernels().name);
    benchmark::Initialize(&argc, argv);
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}
