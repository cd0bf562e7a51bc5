// SPDX-License-Identifier: Apache-2.0
// Files made to hurt: every one must be done with in bounded time and memory, layout or not.
#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <new>

#include "unit/formats/builders.hpp"

namespace {

std::atomic<std::size_t> g_live{0}, g_peak{0};

void* metered_malloc(std::size_t size) noexcept {
    void* p = std::malloc(size);
    if (!p) return nullptr;
    const std::size_t live = g_live += malloc_usable_size(p);
    if (live > g_peak) g_peak = live;
    return p;
}

void* metered_new(std::size_t size) {
    if (void* p = metered_malloc(size)) return p;
    throw std::bad_alloc();
}

void metered_delete(void* p) {
    if (p) g_live -= malloc_usable_size(p);
    std::free(p);
}

}  // namespace

void* operator new(std::size_t size) {
    return metered_new(size);
}
void* operator new[](std::size_t size) {
    return metered_new(size);
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    return metered_malloc(size);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
    return metered_malloc(size);
}
void operator delete(void* p) noexcept {
    metered_delete(p);
}
void operator delete[](void* p) noexcept {
    metered_delete(p);
}
void operator delete(void* p, std::size_t) noexcept {
    metered_delete(p);
}
void operator delete[](void* p, std::size_t) noexcept {
    metered_delete(p);
}

namespace coral::formats::test {
namespace {

using namespace std::string_literals;

constexpr std::size_t kMega = 1024 * 1024;
constexpr std::size_t kMaxMemory = 256 * kMega;
constexpr double kMaxSeconds = 20;

// Sanitizers make everything slower and find the same faults in a tenth of the size.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::size_t kScale = 10;
#else
constexpr std::size_t kScale = 1;
#endif

// `pattern` again and again.
std::string repeated(const std::string& pattern, std::size_t times) {
    std::string out;
    out.reserve(pattern.size() * times);
    for (std::size_t i = 0; i < times; ++i) out += pattern;
    return out;
}

// Begins as given, ends as given, zeros between: a file of any size without the bytes, which counts what is read.
class SparseSource final : public ByteSource {
  public:
    SparseSource(std::string start, std::string end, std::uint64_t size)
        : start_(std::move(start)), end_(std::move(end)), size_(size) {}
    std::uint64_t size() const override { return size_; }
    Status read_at(std::uint64_t offset, MutableBytes out) const override {
        if (offset > size_ || out.size() > size_ - offset) return make_error(Errc::kIo, "read past the end");
        read_ += out.size();
        for (std::size_t i = 0; i < out.size(); ++i) {
            const std::uint64_t at = offset + i, tail = size_ - end_.size();
            out[i] = static_cast<std::byte>(at < start_.size() ? start_[at] : at >= tail ? end_[at - tail] : '\0');
        }
        return {};
    }
    std::uint64_t bytes_read() const { return read_; }

  private:
    std::string start_, end_;
    std::uint64_t size_;
    mutable std::uint64_t read_ = 0;
};

// Of this thread: other programs on the machine do not count.
double cpu_seconds() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

std::optional<Layout> bounded(const ByteSource& source) {
    const std::size_t before = g_live;
    g_peak = before;
    const double start = cpu_seconds();
    auto layout = parse_layout(source);
    const double took = cpu_seconds() - start;
    EXPECT_LT(took, kMaxSeconds);
    EXPECT_LT(g_peak - before, kMaxMemory);
    std::cout << took << " s, " << (g_peak - before) / kMega << " MiB, "
              << (layout.ok() && layout->has_value() ? (*layout)->tensors.size() : 0) << " tensors" << std::endl;
    EXPECT_TRUE(layout.ok());
    if (!layout) return std::nullopt;
    if (*layout) expect_invariants(**layout, source.size());
    return std::move(layout).value();
}

std::optional<Layout> bounded(const std::string& file) {
    return bounded(MemorySource(as_bytes(file)));
}

TEST(Hostile, TheMeterWorks) {
    const std::size_t before = g_live;
    g_peak = before;
    { std::vector<char> memory(kMega); }
    EXPECT_GE(g_peak - before, kMega);
    EXPECT_EQ(g_live, before);
}

// ---- safetensors

std::string many_entries(std::size_t count, const std::string& name) {
    std::string header = "{";
    for (std::size_t i = 0; i < count; ++i) {
        header +=
            (i == 0 ? "\"" : ",\"") + name + std::to_string(i) + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
    }
    return header + "}";
}

TEST(HostileSafetensors, ManyTensors) {
    auto layout = bounded(safetensors(many_entries(500'000, ""), ""));
    ASSERT_TRUE(layout);
    EXPECT_EQ(layout->tensors.size(), 500'000U);
    EXPECT_FALSE(bounded(safetensors(many_entries(600'000, ""), "")));
    EXPECT_FALSE(bounded(safetensors(many_entries(90'000, std::string(1000, 'n')), "")));
}

TEST(HostileSafetensors, DeepNesting) {
    for (const char* open : {"[", "{\"a\":", "[[{\"a\":"}) {
        EXPECT_FALSE(bounded(safetensors("{\"__metadata__\":" + repeated(open, 1'000'000), "")));
    }
}

TEST(HostileSafetensors, LongTextsAndNumbers) {
    const std::size_t n = 30'000'000 / kScale;
    EXPECT_FALSE(bounded(safetensors("{\"" + std::string(n, 'a'), "")));
    EXPECT_TRUE(bounded(safetensors("{\"__metadata__\":{\"k\":\"" + std::string(n, 'a') + "\"}}", "")));
    EXPECT_TRUE(bounded(safetensors("{\"__metadata__\":{\"" + std::string(n, 'a') + "\":1}}", "")));
    EXPECT_TRUE(bounded(safetensors("{\"__metadata__\":" + std::string(n, '9') + "}", "")));
    EXPECT_FALSE(bounded(safetensors(R"({"a":{"shape":[)" + std::string(n, '9') + "]}}", "")));
    EXPECT_FALSE(bounded(safetensors(R"({"a":{"dtype":")" + std::string(n, 'F') + "\"}}", "")));
    EXPECT_TRUE(bounded(safetensors("{}" + std::string(n, ' '), "")));
}

TEST(HostileSafetensors, ManyDimensions) {
    EXPECT_FALSE(bounded(safetensors(R"({"a":{"shape":[)" + repeated("1,", 1'000'000), "")));
    std::string shape = repeated("0,", 63) + "0", header = "{";
    for (int i = 0; i < 400'000; ++i) {
        header += (i == 0 ? "\"" : ",\"") + std::to_string(i) + R"(":{"dtype":"U8","shape":[)" + shape +
                  R"(],"data_offsets":[0,0]})";
    }
    EXPECT_FALSE(bounded(safetensors(header + "}", "")));
}

TEST(HostileSafetensors, LyingLengthsInHugeFiles) {
    for (std::uint64_t length : {std::uint64_t{1}, std::uint64_t{100'000'000}, std::uint64_t{100'000'001},
                                 std::uint64_t{1} << 40, std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
        SparseSource source(le(length, 8) + "{\"", "", std::uint64_t{1} << 62);
        EXPECT_FALSE(bounded(source));
        EXPECT_LT(source.bytes_read(), kMega);
    }
}

// ---- zip

TEST(HostileZip, LyingEndRecordsInHugeFiles) {
    const std::uint64_t size = std::uint64_t{1} << 62;
    for (std::uint64_t lie : {std::uint64_t{1} << 31, std::uint64_t{1} << 40, size - 200, size, ~std::uint64_t{0}}) {
        const std::string end64 =
            le(0x06064b50, 4) + le(44, 8) + le(0, 12) + le(lie / 46, 8) + le(lie / 46, 8) + le(lie, 8) + le(0, 8);
        const std::string locator = le(0x07064b50, 4) + le(0, 4) + le(size - 98, 8) + le(1, 4);
        const std::string end = le(0x06054b50, 4) + le(0, 4) + std::string(12, '\xff') + le(0, 2);
        SparseSource source("PK\3\4", end64 + locator + end, size);
        EXPECT_FALSE(bounded(source));
        EXPECT_LT(source.bytes_read(), kMega);
    }
}

TEST(HostileZip, ManyMembers) {
    ZipOptions options;
    options.zip64_end = true;
    options.align = false;
    for (std::size_t count : {200'000U, 300'000U}) {
        std::vector<Member> members;
        for (std::size_t i = 0; i < count; ++i) members.push_back({"data/" + std::to_string(i), ""});
        EXPECT_EQ(bounded(torch_zip(Pickle().raw("}").stop(), members, options)).has_value(), count == 200'000);
    }
    std::vector<Member> members;
    for (std::size_t i = 0; i < 1000; ++i)
        members.push_back({"data/" + std::string(30'000, 'n') + std::to_string(i), ""});
    EXPECT_TRUE(bounded(torch_zip(Pickle().raw("}").stop(), members, options)));
}

// A thousand members that share their bytes: refused before anything is read twice.
TEST(HostileZip, OverlapBomb) {
    std::vector<Member> members{{"a/data.pkl", Pickle().raw("}").stop()}};
    for (int i = 0; i < 1000; ++i)
        members.push_back({"a/data/" + std::to_string(i), std::string(1000, 'x'), 0, 0, "", ~0ULL, 100});
    EXPECT_FALSE(bounded(zip(members)));
}

TEST(HostileZip, EveryByteOfTheTailLooksLikeAnEnd) {
    std::string file = "PK\3\4";
    EXPECT_FALSE(bounded(file + repeated("PK\5\6", 1'000'000)));
}

// ---- pickle

const std::vector<Member>& four_bytes() {
    static const std::vector<Member> members{{"data/0", "abcd"}};
    return members;
}

TEST(HostilePickle, OpcodesWithoutEnd) {
    for (const std::string& pattern : {"]"s,   "("s,      "N"s,   "N0"s,    "}"s,       ")"s,    "N\x85"s,
                                       "]2"s,  "(1"s,     "]a"s,  "N\x94"s, "\x8c\1x"s, "U\0"s,  "cos\nx\n"s,
                                       "N)R"s, "N)\x81"s, "]]a"s, "}NNs"s,  "](NNNNe"s, "(NNd"s, "K\1K\2K\3\x87"s}) {
        SCOPED_TRACE(pattern);
        Pickle pickle;
        pickle.raw("}")
            .text("w")
            .tensor("FloatStorage", "0", 1, {1})
            .raw("s")
            .raw(repeated(pattern, 3'000'000 / kScale));
        auto layout = bounded(torch_zip(pickle.stop(), four_bytes()));
        ASSERT_TRUE(layout);  // the name is lost where the pickle buries the dict, never the tensor
        ASSERT_EQ(layout->tensors.size(), 1U);
        EXPECT_EQ(layout->tensors[0].dtype, Dtype::kF32);
    }
}

TEST(HostilePickle, MoreOpcodesThanAnyoneNeeds) {
    auto layout = bounded(torch_zip(Pickle().raw(repeated("N0", 35'000'000 / kScale)).stop(), four_bytes()));
    EXPECT_EQ(find(layout, "storage:0").dtype, Dtype::kUnknown);
}

TEST(HostilePickle, MemoWithGaps) {
    std::string puts;
    for (std::uint64_t slot = 1000; slot < 40'000'000; slot += 1000) puts += "r" + le(slot, 4);
    EXPECT_TRUE(bounded(torch_zip(Pickle().raw("N").raw(puts).stop(), four_bytes())));
    EXPECT_TRUE(bounded(torch_zip(Pickle().raw("Nr\xff\xff\xff\xff").stop(), four_bytes())));
}

// A list of two of the list before, sixty times: 2^60 paths, 60 containers.
TEST(HostilePickle, BillionLaughs) {
    Pickle pickle;
    pickle.raw("]q").raw(le(0, 1)).raw("(").tensor("FloatStorage", "0", 1, {1}).raw("e0");
    for (std::uint64_t i = 0; i < 60; ++i) {
        pickle.raw("]q").raw(le(i + 1, 1)).raw("(h").raw(le(i, 1)).raw("h").raw(le(i, 1)).raw("e0");
    }
    auto layout = bounded(torch_zip(pickle.raw("h").raw(le(60, 1)).stop(), four_bytes()));
    ASSERT_TRUE(layout);
    ASSERT_EQ(layout->tensors.size(), 1U);
    EXPECT_EQ(layout->tensors[0].name, repeated("0.", 60) + "0");
}

TEST(HostilePickle, DeepContainers) {
    Pickle pickle;
    const std::size_t depth = 400'000;
    pickle.raw(repeated("]", depth)).tensor("FloatStorage", "0", 1, {1}).raw(repeated("a", depth));
    EXPECT_EQ(find(bounded(torch_zip(pickle.stop(), four_bytes())), "storage:0").dtype, Dtype::kF32);
}

// Deep, with long keys, and a tensor on each level: paths must not add up to depth times width.
TEST(HostilePickle, LongPaths) {
    Pickle pickle;
    pickle.text("short").raw("q\0"s).text(std::string(1000, 'k')).raw("q\1"s);
    const std::string tensor = Pickle().tensor("FloatStorage", "0", 1, {1}).bytes().substr(2);
    pickle.raw(repeated("}(h\0"s + tensor + "h\1"s, 60'000)).raw("N").raw(repeated("u", 60'000));
    EXPECT_TRUE(bounded(torch_zip(pickle.stop(), four_bytes())));
    Pickle wide;  // one long path, many tensors under it
    wide.raw("}").text(std::string(1000, 'k')).raw("](");
    for (int i = 0; i < 100'000 / static_cast<int>(kScale); ++i) wide.tensor("FloatStorage", "0", 1, {1});
    EXPECT_TRUE(bounded(torch_zip(wide.raw("es").stop(), four_bytes())));
}

TEST(HostilePickle, ManyStoragesUnderOneKey) {
    Pickle pickle;
    pickle.raw("](");
    std::string one = Pickle().storage("FloatStorage", "0", 1).bytes().substr(2);
    EXPECT_TRUE(bounded(torch_zip(pickle.raw(repeated(one, 1'000'000 / kScale)).raw("e").stop(), four_bytes())));
}

// Four bytes of pickle ask for a member by a long name, among many that begin alike, in an archive of a long name.
TEST(HostilePickle, ManyLookupsOfLongKeys) {
    for (const std::size_t key_length : {std::size_t{60}, std::size_t{1000}}) {
        const std::string archive(10'000, 'a'), key(key_length, 'k');
        Pickle pickle;
        pickle.raw("(")
            .text("storage")
            .global("torch", "ByteStorage")
            .text(key + "1")
            .text("cpu")
            .integer(1)
            .raw("tq\0"s);
        pickle.raw(repeated("h\0Q0"s, 2'000'000 / kScale));
        std::vector<Member> members{{archive + "/data.pkl", pickle.stop()}};
        for (int i = 0; i < 2000; ++i) members.push_back({archive + "/data/" + key + std::to_string(i), "x"});
        auto layout = bounded(zip(members));
        ASSERT_TRUE(layout);
        EXPECT_EQ(layout->tensors.size(), 2000U);
    }
}

TEST(HostilePickle, HugeTextsAreStepped) {
    Pickle pickle;
    pickle.raw("}(").text("bytes").raw("\x8e" + le(20'000'000, 8)).raw(std::string(20'000'000, 'b'));
    pickle.text("w").tensor("FloatStorage", "0", 1, {1}).raw("u");
    EXPECT_EQ(find(bounded(torch_zip(pickle.stop(), four_bytes())), "w").dtype, Dtype::kF32);
}

// A large but honest state dict still gets its names.
TEST(HostilePickle, AHundredThousandTensorsAreFine) {
    Pickle pickle;
    std::vector<Member> members;
    pickle.raw("}(");
    for (int i = 0; i < 100'000; ++i) {
        pickle.text("model.layers." + std::to_string(i) + ".weight")
            .tensor("FloatStorage", std::to_string(i), 1, {1, 1});
        members.push_back({"data/" + std::to_string(i), "abcd"});
    }
    ZipOptions options;
    options.zip64_end = true;
    auto layout = bounded(torch_zip(pickle.raw("u").stop(), members, options));
    ASSERT_TRUE(layout);
    EXPECT_EQ(layout->tensors.size(), 100'000U);
    EXPECT_EQ(find(layout, "model.layers.99999.weight").dtype, Dtype::kF32);
}

// ---- npy

TEST(HostileNpy, Headers) {
    const std::string start = "{'descr': '|u1', 'fortran_order': False, 'shape': (";
    for (const std::string& header :
         {start + repeated("1,", 500'000), std::string(kMega, ' '), std::string(kMega, '{'), std::string(kMega, '('),
          "{'" + std::string(kMega - 10, 'x'), start + std::string(kMega - 100, '9'), std::string(2 * kMega, ' ')}) {
        EXPECT_FALSE(bounded(npy(header, "", 2)));
    }
    SparseSource source(npy(start + "4611686018427387904,)}", ""), "", std::uint64_t{1} << 62);
    EXPECT_FALSE(bounded(source));
    EXPECT_LT(source.bytes_read(), kMega);
}

// ---- ONNX

TEST(HostileOnnx, DeepGraphs) {
    std::string graph = proto(5, onnx_tensor("w", 1, {1}, "abcd"));
    for (int depth = 0; depth < 60; ++depth) {
        graph = proto(1, proto(3, std::string(1000, 'n')) + proto(5, proto(1, "a"s) + proto(6, graph)));
        EXPECT_EQ(bounded(onnx(graph)).has_value(), depth < 32) << depth;  // three messages each
    }
    // Built from the outside, as only lengths that lie can be.
    EXPECT_FALSE(
        bounded("\x08\x08" + repeated("\x3a\xff\xff\xff\xff\x07\x0a\xff\xff\xff\xff\x07", 1'000'000 / kScale)));
}

TEST(HostileOnnx, ManyFieldsAndTensors) {
    const std::size_t n = 20'000'000 / kScale;
    EXPECT_TRUE(bounded(onnx(repeated("\x0a\0"s, n))));                      // nodes
    EXPECT_TRUE(bounded(onnx(repeated("\x2a\0"s, n))));                      // initializers
    EXPECT_TRUE(bounded(onnx(proto(1, proto(5, repeated("\x2a\0"s, n))))));  // tensors of an attribute
    EXPECT_FALSE(bounded(onnx(proto(5, repeated("\x08\1"s, n)))));           // dimensions
    EXPECT_FALSE(bounded(onnx(proto(5, proto(1, std::string(n, '\1'))))));
    if (kScale == 1) {  // there is no smaller one
        EXPECT_FALSE(bounded(onnx(repeated("\x0a\0"s, 70'000'000))));
    }
    auto layout = bounded(onnx(repeated(proto(5, onnx_tensor(std::string(100, 'n'), 1, {1}, "abcd")), 600'000)));
    ASSERT_TRUE(layout);
    EXPECT_EQ(layout->tensors.size(), std::size_t{1} << 19);
    EXPECT_EQ(find(layout, "tensor:0").length, 4U);  // beyond what names may take together
}

TEST(HostileOnnx, LyingLengthsInHugeFiles) {
    for (std::uint64_t lie :
         {std::uint64_t{1} << 31, std::uint64_t{1} << 40, std::uint64_t{1} << 61, ~std::uint64_t{0}}) {
        for (const std::string& field : {proto(7, ""s, lie), proto(2, ""s, lie), proto(7, proto(5, ""s, lie), lie)}) {
            SparseSource source("\x08\x08" + field, "", std::uint64_t{1} << 62);
            EXPECT_FALSE(bounded(source));
            EXPECT_LT(source.bytes_read(), kMega);
        }
    }
}

// ---- GGUF

TEST(HostileGguf, LyingCountsInHugeFiles) {
    for (std::uint64_t lie : {std::uint64_t{1} << 20, std::uint64_t{1} << 40, ~std::uint64_t{1}}) {
        GgufOptions options;
        options.pairs_lie = lie;
        SparseSource pairs(gguf({}, {}, "", options), "", std::uint64_t{1} << 62);
        EXPECT_FALSE(bounded(pairs));
        options = {};
        options.tensors_lie = lie;
        SparseSource tensors(gguf({}, {}, "", options), "", std::uint64_t{1} << 62);
        EXPECT_FALSE(bounded(tensors));
        for (std::uint32_t type : {0U, 8U, 9U, 12U}) {
            // To the end of what is read of a header: long where reading is slow.
            const bool one_by_one = type == 8 || type == 9;
            if (kScale != 1 && one_by_one && lie > std::uint64_t{1} << 20) continue;
            options = {};
            options.pairs_lie = 2;
            const std::string array = gguf_pair("k", 9, gguf_number(type, 4) + gguf_number(lie, 8));
            SparseSource arrays(gguf({array}, {}, "", options), "", std::uint64_t{1} << 62);
            EXPECT_FALSE(bounded(arrays)) << type;
            EXPECT_LE(arrays.bytes_read(), 257 * kMega);
        }
    }
}

TEST(HostileGguf, ManyTensors) {
    for (std::size_t count : {500'000U, 600'000U}) {
        std::vector<GgufTensor> tensors;
        for (std::size_t i = 0; i < count; ++i) tensors.push_back({std::to_string(i), {0}, i % 2 ? 0U : 999U, 0});
        EXPECT_EQ(bounded(gguf({}, tensors, "")).has_value(), count == 500'000);
    }
    std::vector<GgufTensor> tensors(100'000, {"", std::vector<std::uint64_t>(64, 0), 0, 0});
    EXPECT_FALSE(bounded(gguf({}, tensors, "")));
}

// ---- torch before 1.6

TEST(HostileTorchLegacy, ManyStorages) {
    Pickle pickle;
    std::vector<LegacyStorage> storages;
    pickle.raw("](");
    for (int i = 0; i < 200'000 / static_cast<int>(kScale); ++i) {
        pickle.storage("ByteStorage", std::to_string(i), 0);
        storages.push_back({std::to_string(i), "", 0});
    }
    EXPECT_TRUE(bounded(torch_legacy(pickle.raw("e").stop(), storages)));
}

// Two pickles at their limits, and a list that asks for one storage again and again by a long key.
TEST(HostileTorchLegacy, KeysThatRepeat) {
    for (const std::size_t length : {std::size_t{60}, std::size_t{1000}}) {
        Pickle pickle;
        pickle.raw("](");
        const std::size_t n = 100'000 / kScale;
        for (std::size_t i = 0; i < n; ++i)
            pickle.storage("ByteStorage", std::string(length, 'k') + std::to_string(i), 0);
        const std::string object = pickle.raw("e").stop();
        std::string file = torch_legacy(object, {});
        file.resize(file.size() - Pickle().raw("](e").stop().size());
        Pickle keys;
        keys.raw("](").text(std::string(length, 'k') + "5").raw("q\0"s).raw(repeated("h\0"s, 10'000'000 / kScale));
        EXPECT_FALSE(bounded(file + keys.raw("e").stop() + std::string(80'000'000 / kScale, '\0')));
    }
}

TEST(HostileTorchLegacy, PrologueWithoutEnd) {
    const std::string file = torch_legacy("", {}), magic = file.substr(0, 15);
    for (const std::string& pattern : {"]"s, "("s, "N"s, "N0"s, "]2"s, "K\1K\2K\3\x87"s}) {
        EXPECT_FALSE(bounded(magic + repeated(pattern, 3'000'000 / kScale)));
        EXPECT_FALSE(bounded(magic + "M\xe9\x03." + repeated(pattern, 3'000'000 / kScale)));
    }
}

}  // namespace
}  // namespace coral::formats::test
