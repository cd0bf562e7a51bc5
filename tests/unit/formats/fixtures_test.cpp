// SPDX-License-Identifier: Apache-2.0
// Real files of torch, safetensors and NumPy, compared with what those libraries said is in them (make_fixtures.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "unit/formats/builders.hpp"

namespace coral::formats::test {
namespace {

// As in the .expected files.
std::vector<std::string> describe(const Layout& layout, const std::string& file) {
    std::vector<std::string> lines;
    for (const Tensor& tensor : layout.tensors) {
        std::string shape;
        for (std::uint64_t dimension : tensor.shape) shape += (shape.empty() ? "" : ",") + std::to_string(dimension);
        const std::string bytes = bytes_of(file, tensor);
        lines.push_back(tensor.name + '\t' + std::string(dtype_name(tensor.dtype)) + '\t' + shape + '\t' +
                        to_hex(as_bytes(bytes)));
    }
    std::sort(lines.begin(), lines.end());
    return lines;
}

std::vector<std::string> sorted_lines(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    std::sort(lines.begin(), lines.end());
    return lines;
}

class Fixture : public testing::TestWithParam<const char*> {};

TEST_P(Fixture, MatchesWhatItsLibrarySays) {
    std::optional<std::string> file = read_fixture(GetParam());
    std::optional<std::string> expected = read_fixture(std::string(GetParam()) + ".expected");
    ASSERT_TRUE(file && expected);
    std::optional<Layout> layout = parse(*file);
    ASSERT_TRUE(layout);
    EXPECT_EQ(describe(*layout, *file), sorted_lines(*expected));
}

INSTANTIATE_TEST_SUITE_P(Torch, Fixture,
                         testing::Values("state_dict.pt", "training.pt", "module.pt", "parameter.pt", "sparse.pt",
                                         "quantised.pt", "protocol3.pt", "protocol4.pt", "protocol5.pt", "script.jit",
                                         "frozen.jit", "streamed.pt", "zip64.pt", "deflated.pt", "deflated_pickle.pt"));
INSTANTIATE_TEST_SUITE_P(Safetensors, Fixture, testing::Values("all.safetensors", "none.safetensors"));
INSTANTIATE_TEST_SUITE_P(Npy, Fixture,
                         testing::Values("f4.npy", "fortran.npy", "big.npy", "v2.npy", "v3.npy", "scalar.npy",
                                         "empty.npy", "time.npy", "longdouble.npy", "text.npy"));

INSTANTIATE_TEST_SUITE_P(Npz, Fixture, testing::Values("two.npz", "objects.npz"));
INSTANTIATE_TEST_SUITE_P(Onnx, Fixture, testing::Values("all.onnx"));
INSTANTIATE_TEST_SUITE_P(Gguf, Fixture, testing::Values("little.gguf", "big.gguf"));
INSTANTIATE_TEST_SUITE_P(TorchLegacy, Fixture,
                         testing::Values("legacy.pt", "legacy_state.pt", "legacy_training.pt", "legacy_quantised.pt",
                                         "legacy_two.pt"));

class NoLayout : public testing::TestWithParam<const char*> {};

TEST_P(NoLayout, IsPlainBytes) {
    std::optional<std::string> file = read_fixture(GetParam());
    ASSERT_TRUE(file);
    EXPECT_FALSE(parse(*file));
}

INSTANTIATE_TEST_SUITE_P(Formats, NoLayout, testing::Values("struct.npy", "object.npy", "compressed.npz"));

// Every prefix of a real file: while it is being written, a file is a truncated one.
TEST(FixturePrefixes, NeverCrash) {
    for (const char* name :
         {"state_dict.pt", "script.jit", "zip64.pt", "all.safetensors", "v2.npy", "two.npz", "legacy_state.pt"}) {
        std::optional<std::string> file = read_fixture(name);
        ASSERT_TRUE(file);
        for (std::size_t n = 0; n < file->size(); ++n) EXPECT_FALSE(parse(file->substr(0, n))) << name << ' ' << n;
    }
}

// Padding at the end of a GGUF is no tensor's, and a protobuf may end after any field: what is found is there.
TEST(FixturePrefixes, ThatAreWholeInThemselves) {
    for (const auto& [name, least] :
         {std::pair{"little.gguf", 0.95}, std::pair{"big.gguf", 0.95}, std::pair{"all.onnx", 0.8}}) {
        std::optional<std::string> file = read_fixture(name);
        ASSERT_TRUE(file);
        const std::optional<Layout> whole = parse(*file);
        ASSERT_TRUE(whole);
        for (std::size_t n = 0; n < file->size(); ++n) {
            const std::optional<Layout> layout = parse(file->substr(0, n));
            if (!layout) continue;
            EXPECT_GT(static_cast<double>(n), least * static_cast<double>(file->size())) << name;
            EXPECT_TRUE(std::includes(whole->tensors.begin(), whole->tensors.end(), layout->tensors.begin(),
                                      layout->tensors.end(),
                                      [](const Tensor& a, const Tensor& b) { return a.offset < b.offset; }));
        }
    }
}

TEST(FixtureOrder, BigEndianIsTold) {
    std::optional<std::string> file = read_fixture("big.npy");
    ASSERT_TRUE(file);
    EXPECT_TRUE(find(parse(*file), "npy").big_endian);
    file = read_fixture("big.gguf");
    ASSERT_TRUE(file);
    std::optional<Layout> layout = parse(*file);
    EXPECT_TRUE(find(layout, "token_embd.weight").big_endian);
    EXPECT_FALSE(find(layout, "small").big_endian);
    file = read_fixture("little.gguf");
    ASSERT_TRUE(file);
    EXPECT_FALSE(find(parse(*file), "token_embd.weight").big_endian);
}

}  // namespace
}  // namespace coral::formats::test
