// SPDX-License-Identifier: Apache-2.0
// Random files: what a builder wrote is what a parser finds, and no damage to a file makes a parser crash or break the
// promises of a layout. CORAL_TEST_SEED repeats a run.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <random>

#include "unit/formats/builders.hpp"

namespace coral::formats::test {
namespace {

class Random {
  public:
    explicit Random(std::uint64_t seed) : engine_(seed) {}
    std::uint64_t below(std::uint64_t n) { return std::uniform_int_distribution<std::uint64_t>(0, n - 1)(engine_); }
    std::string bytes(std::size_t n) {
        std::string out(n, '\0');
        for (char& c : out) c = static_cast<char>(below(256));
        return out;
    }
    template <class T>
    const T& pick(const std::vector<T>& from) {
        return from[below(from.size())];
    }
    template <class T>
    void shuffle(std::vector<T>& v) {
        std::shuffle(v.begin(), v.end(), engine_);
    }

  private:
    std::mt19937_64 engine_;
};

std::uint64_t test_seed() {
    const char* given = std::getenv("CORAL_TEST_SEED");
    const std::uint64_t seed = given ? std::strtoull(given, nullptr, 10) : std::random_device{}();
    std::cout << "CORAL_TEST_SEED=" << seed << std::endl;
    return seed;
}

std::vector<std::uint64_t> random_shape(Random& random) {
    std::vector<std::uint64_t> shape(random.below(4));
    for (auto& dimension : shape) dimension = random.below(5);
    return shape;
}

std::uint64_t product(const std::vector<std::uint64_t>& shape) {
    std::uint64_t count = 1;
    for (auto dimension : shape) count *= dimension;
    return count;
}

std::string join(const std::vector<std::uint64_t>& numbers) {
    std::string out;
    for (auto n : numbers) out += (out.empty() ? "" : ",") + std::to_string(n);
    return out;
}

struct Built {
    std::string file;
    std::vector<Tensor> tensors;
};

Built random_safetensors(Random& random) {
    Built built;
    std::vector<std::string> entries;
    std::uint64_t at = 0;
    for (std::uint64_t i = 0, n = random.below(12); i < n; ++i) {
        Tensor tensor;
        tensor.name = "layer." + std::to_string(i) + std::string(random.below(20), 'n');
        tensor.dtype = static_cast<Dtype>(1 + random.below(23));
        tensor.shape = random_shape(random);
        if (dtype_bits(tensor.dtype) % 8 != 0) tensor.shape.push_back(8);
        tensor.offset = at;
        tensor.length = product(tensor.shape) * dtype_bits(tensor.dtype) / 8;
        at += tensor.length;
        entries.push_back('"' + tensor.name + R"(":{"dtype":")" + std::string(dtype_name(tensor.dtype)) +
                          R"(","shape":[)" + join(tensor.shape) + R"(],"data_offsets":[)" + join({tensor.offset, at}) +
                          "]}");
        built.tensors.push_back(std::move(tensor));
    }
    if (random.below(2) == 0) entries.push_back(R"("__metadata__":{"format":"pt"})");
    random.shuffle(entries);
    std::string header = "{";
    for (const std::string& entry : entries) header += (header.size() == 1 ? "" : ",") + entry;
    header += "}" + std::string(random.below(9), ' ');
    for (Tensor& tensor : built.tensors) tensor.offset += 8 + header.size();
    built.file = safetensors(header, random.bytes(at));
    return built;
}

ZipOptions random_options(Random& random) {
    ZipOptions options;
    options.zip64_members = random.below(2) == 0;
    options.zip64_end = random.below(2) == 0;
    options.descriptors = random.below(2) == 0;
    options.align = random.below(2) == 0;
    options.comment = random.below(4) == 0 ? "comment" : "";
    return options;
}

// Offsets are left 0: the zip decides them.
Built random_torch_zip(Random& random) {
    static const std::vector<std::pair<std::string, Dtype>> types{{"FloatStorage", Dtype::kF32},
                                                                  {"BFloat16Storage", Dtype::kBF16},
                                                                  {"LongStorage", Dtype::kI64},
                                                                  {"BoolStorage", Dtype::kBool},
                                                                  {"ComplexFloatStorage", Dtype::kC64}};
    Built built;
    Pickle pickle;
    pickle.raw("}(").text("model").raw("}(");
    std::vector<Member> members;
    for (std::uint64_t i = 0, n = random.below(12); i < n; ++i) {
        const auto& [type, dtype] = random.pick(types);
        Tensor tensor;
        tensor.name = "model.layer." + std::to_string(i);
        tensor.dtype = dtype;
        tensor.shape = random_shape(random);
        const std::uint64_t count = product(tensor.shape);
        tensor.length = count * dtype_bits(dtype) / 8;
        pickle.text("layer." + std::to_string(i)).tensor(type, std::to_string(i), count, tensor.shape);
        if (random.below(3) == 0)
            pickle.text("tied." + std::to_string(i)).tensor(type, std::to_string(i), count, {0}, 0);
        members.push_back({"data/" + std::to_string(i), random.bytes(tensor.length)});
        built.tensors.push_back(std::move(tensor));
    }
    random.shuffle(members);
    built.file = torch_zip(pickle.raw("uu").stop(), members, random_options(random));
    return built;
}

Built random_npy(Random& random) {
    Built built;
    Tensor tensor{"npy", Dtype::kF64, random.below(2) == 0, random_shape(random), 0, 0};
    tensor.length = 8 * product(tensor.shape);
    std::string shape = join(tensor.shape);
    if (!shape.empty()) shape += ",";
    const std::string header = std::string("{'descr': '") + (tensor.big_endian ? '>' : '<') +
                               "f8', 'fortran_order': False, 'shape': (" + shape + "), }\n";
    built.file = npy(header, random.bytes(tensor.length), 1 + static_cast<int>(random.below(3)));
    tensor.offset = built.file.size() - tensor.length;
    built.tensors.push_back(std::move(tensor));
    return built;
}

void sort_by_name(std::vector<Tensor>& tensors) {
    std::sort(tensors.begin(), tensors.end(), [](const Tensor& a, const Tensor& b) { return a.name < b.name; });
}

TEST(FormatProperty, WhatWasBuiltIsFound) {
    Random random(test_seed());
    for (int i = 0; i < 2000; ++i) {
        const int kind = i % 3;
        Built built = kind == 0   ? random_safetensors(random)
                      : kind == 1 ? random_torch_zip(random)
                                  : random_npy(random);
        std::optional<Layout> layout = parse(built.file);
        ASSERT_TRUE(layout) << i;
        if (kind == 1) {
            for (Tensor& tensor : layout->tensors) tensor.offset = 0;
        }
        sort_by_name(layout->tensors);
        sort_by_name(built.tensors);
        ASSERT_EQ(layout->tensors, built.tensors) << i;
    }
}

void damage(Random& random, std::string& file, const std::string& other) {
    static const std::vector<std::uint64_t> numbers{0,          1,          0x7f,       0xff,       0xffff,
                                                    0x7fffffff, 0xffffffff, 1ULL << 32, ~0ULL >> 1, ~0ULL};
    if (file.empty()) file = "x";
    const std::size_t at = random.below(file.size());
    switch (random.below(7)) {
        case 0:
            file[at] = static_cast<char>(file[at] ^ (1 << random.below(8)));
            break;
        case 1:
            file[at] = static_cast<char>(random.below(256));
            break;
        case 2:
            file.resize(at);
            break;
        case 3:
            file.insert(at, file.substr(random.below(file.size()), random.below(64)));
            break;
        case 4:
            file.erase(at, random.below(64));
            break;
        case 5: {  // a piece of another file
            const std::string piece = other.substr(random.below(other.size() + 1), 1 + random.below(64));
            file.replace(at, std::min(piece.size(), file.size() - at), piece);
            break;
        }
        default: {  // a number that is on an edge
            const std::string number = le(random.pick(numbers) + random.below(3) - 1, 1ULL << random.below(4));
            file.replace(at, std::min(number.size(), file.size() - at), number);
        }
    }
}

TEST(FormatProperty, DamageNeverBreaksTheLayoutsPromises) {
    Random random(test_seed());
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(4);
    std::uint64_t tried = 0, with_layout = 0;
    std::vector<std::string> real;
    for (const char* name : {"state_dict.pt", "quantised.pt", "script.jit", "all.safetensors", "two.npz", "all.onnx",
                             "little.gguf", "big.gguf", "legacy_state.pt", "legacy_training.pt"}) {
        real.push_back(read_fixture(name).value_or(""));
        ASSERT_FALSE(real.back().empty()) << name;
    }
    while (std::chrono::steady_clock::now() < end && tried < 200'000 && !testing::Test::HasFailure()) {
        std::vector<std::string> base{random_safetensors(random).file, random_torch_zip(random).file,
                                      random_npy(random).file};
        base.insert(base.end(), real.begin(), real.end());
        for (int i = 0; i < 60; ++i) {
            std::string file = random.pick(base);
            for (std::uint64_t n = 1 + random.below(4); n > 0; --n) damage(random, file, random.pick(base));
            with_layout += parse(file).has_value();
            ++tried;
        }
    }
    std::cout << tried << " damaged files, " << with_layout << " still with a layout" << std::endl;
    EXPECT_GT(with_layout, 0U);
}

// Random opcodes get further into the interpreter than damage to a real pickle does.
TEST(FormatProperty, RandomPicklesNeverCrash) {
    Random random(test_seed());
    std::vector<std::string> words{"(",
                                   ")",
                                   "]",
                                   "}",
                                   "t",
                                   "u",
                                   "e",
                                   "s",
                                   "a",
                                   "b",
                                   "R",
                                   "Q",
                                   "\x81",
                                   "\x85",
                                   "\x86",
                                   "\x87",
                                   "0",
                                   "1",
                                   "2",
                                   "N",
                                   "\x88",
                                   "l",
                                   "d",
                                   "\x8f",
                                   "\x90",
                                   "\x91",
                                   "\x92",
                                   "\x93",
                                   "\x94",
                                   "K\1",
                                   "K\3",
                                   Pickle().storage("FloatStorage", "0", 1).bytes().substr(2),
                                   Pickle().text("w").bytes().substr(2),
                                   Pickle().tensor("FloatStorage", "0", 1, {1}).bytes().substr(2),
                                   Pickle().global("torch._utils", "_rebuild_tensor_v3").bytes().substr(2),
                                   Pickle().global("torch._utils", "_rebuild_qtensor").bytes().substr(2),
                                   Pickle().global("torch._tensor", "_rebuild_from_type_v2").bytes().substr(2),
                                   Pickle().global("collections", "OrderedDict").bytes().substr(2)};
    for (char slot = 0; slot < 4; ++slot) {
        words.push_back(std::string("q") + slot);
        words.push_back(std::string("h") + slot);
    }
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(3);
    for (int i = 0; i < 50'000 && std::chrono::steady_clock::now() < end && !testing::Test::HasFailure(); ++i) {
        Pickle pickle;
        for (std::uint64_t n = random.below(60); n > 0; --n) pickle.raw(random.pick(words));
        EXPECT_TRUE(parse(torch_zip(pickle.stop(), {{"data/0", "abcd"}})));
    }
}

}  // namespace
}  // namespace coral::formats::test
