// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "unit/formats/builders.hpp"

namespace coral::formats::test {
namespace {

using namespace std::string_literals;

std::string two_weights() {
    Pickle pickle;
    pickle.raw("}(").text("a").tensor("FloatStorage", "10", 2, {2}).text("b").tensor("LongStorage", "9", 1, {});
    return pickle.raw("u").stop();
}

std::vector<LegacyStorage> their_storages() {
    return {{"10", "abcdefgh", 2}, {"9", "12345678", 1}};
}

TEST(TorchLegacy, TensorsUnderTheNamesOfTheirPaths) {
    const std::string file = torch_legacy(two_weights(), their_storages());
    auto layout = parse(file);
    ASSERT_TRUE(layout);
    EXPECT_EQ(layout->parser, Parser::kTorchLegacy);
    const std::uint64_t a = file.size() - 24, b = file.size() - 8;
    EXPECT_EQ(layout->tensors,
              (std::vector<Tensor>{{"a", Dtype::kF32, false, {2}, a, 8}, {"b", Dtype::kI64, false, {}, b, 8}}));
}

TEST(TorchLegacy, AStorageThatNoPathLeadsToGoesByItsPlace) {
    const std::string pickle = Pickle().storage("HalfStorage", "777", 2).raw("0N").stop();
    EXPECT_EQ(find(parse(torch_legacy(pickle, {{"777", "abcd", 2}})), "storage:0").dtype, Dtype::kF16);
}

TEST(TorchLegacy, MoreMayFollow) {
    EXPECT_TRUE(parse(torch_legacy(two_weights(), their_storages()) + "more"));
    EXPECT_TRUE(parse(torch_legacy(Pickle().raw("}").stop(), {})));
}

// Without a size for every storage nobody knows where the next one starts.
TEST(TorchLegacy, StoragesThatAreNotAsThePickleSays) {
    const std::string pickle = two_weights();
    EXPECT_FALSE(parse(torch_legacy(pickle, {{"10", "abcdefgh", 1}, {"9", "12345678", 1}})));
    EXPECT_FALSE(parse(torch_legacy(pickle, {{"10", "abcdefgh", 2}, {"8", "12345678", 1}})));
    EXPECT_FALSE(parse(torch_legacy(pickle, {{"10", "abcdefgh", 2}, {"10", "abcdefgh", 2}})));
    EXPECT_TRUE(parse(torch_legacy(pickle, {{"9", "12345678", 1}, {"10", "abcdefgh", 2}})));
    EXPECT_TRUE(parse(torch_legacy(pickle, {{"9", "12345678", 1}})));
    for (const auto& [type, data] :
         std::vector<std::pair<std::string, std::string>>{{"QInt32Storage", "abcd"},
                                                          {"QUInt8Storage", "a"},
                                                          {"ComplexDoubleStorage", std::string(16, 'x')},
                                                          {"UntypedStorage", "a"}}) {
        const std::string file = torch_legacy(Pickle().tensor(type, "1", 1, {1}).stop(), {{"1", data, 1}});
        EXPECT_EQ(find(parse(file), "storage:0").length, data.size()) << type;
        EXPECT_FALSE(parse(file.substr(0, file.size() - 1))) << type;
    }
    EXPECT_FALSE(parse(torch_legacy(Pickle().tensor("NobodysStorage", "1", 1, {1}).stop(), {{"1", "abcd", 1}})));
    const std::uint64_t huge = 1ULL << 54;
    EXPECT_FALSE(parse(torch_legacy(Pickle().storage("FloatStorage", "1", huge).stop(), {{"1", "abcd", huge}})));
    EXPECT_FALSE(parse(torch_legacy(Pickle().storage("FloatStorage", std::string(65, '1'), 1).stop(),
                                    {{std::string(65, '1'), "abcd", 1}})));
}

TEST(TorchLegacy, TheListOfKeysIsAListOfTexts) {
    const std::string object = Pickle().storage("FloatStorage", "1", 1).stop();
    const std::string start = torch_legacy(object, {}), empty = Pickle().raw("](e").stop();
    ASSERT_TRUE(start.ends_with(empty));
    const std::string before = start.substr(0, start.size() - empty.size()), storage = le(1, 8) + "abcd";
    EXPECT_TRUE(parse(before + Pickle().raw("](").text("1").raw("e").stop() + storage));
    EXPECT_FALSE(parse(before + Pickle().raw("(").text("1").raw("t").stop() + storage));
    EXPECT_FALSE(parse(before + Pickle().raw("](K\1e").stop() + storage));
    EXPECT_FALSE(parse(before + Pickle().raw("](").text("1").bytes() + storage));
}

TEST(TorchLegacy, ThePrologueIsWhatTorchWrites) {
    const std::string file = torch_legacy(two_weights(), their_storages());
    for (std::size_t at = 0; at < 15; ++at) {
        std::string damaged = file;
        damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
        EXPECT_EQ(parse(damaged).has_value(), at == 1) << at;  // 1: the number of pickle's protocol
    }
    std::string framed = file;
    EXPECT_TRUE(parse(framed.insert(2, "\x95" + le(13, 8))));
    const std::string other_version = "M\xe8\x03";
    std::string damaged = file;
    EXPECT_FALSE(parse(damaged.replace(file.find("M\xe9\x03"), 3, other_version)));
}

TEST(TorchLegacy, EveryPrefix) {
    const std::string file = torch_legacy(two_weights(), their_storages());
    for (std::size_t n = 0; n < file.size(); ++n) EXPECT_FALSE(parse(file.substr(0, n))) << n;
}

// What the pickle does not say to its end is not known to end there.
TEST(TorchLegacy, APickleThatEndsEarly) {
    const std::string bad = Pickle().raw("}(").text("a").tensor("FloatStorage", "10", 2, {2}).raw("\xff").stop();
    EXPECT_FALSE(parse(torch_legacy(bad, {{"10", "abcdefgh", 2}})));
}

}  // namespace
}  // namespace coral::formats::test
