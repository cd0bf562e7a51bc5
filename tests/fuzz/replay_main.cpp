// SPDX-License-Identifier: Apache-2.0
// Drives a fuzz target without libFuzzer: every file of a corpus, then mutations of them, the same ones for the same
// seed, until the time is over. A crash leaves the input in crash-input, which is a corpus of one file.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "fuzz/fuzz.hpp"

// A sanitizer's report ends in a signal, so that the input is kept.
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() {
    return "abort_on_error=1";
}
extern "C" const char* __ubsan_default_options();
extern "C" const char* __ubsan_default_options() {
    return "abort_on_error=1:print_stacktrace=1";
}

namespace {

constexpr char kUsage[] =
    "usage: TARGET [--seconds N] [--mutations N] [--seed N] FILE-OR-FOLDER…\n\n"
    "Runs the target on every file, then on mutations of each (default: until 3 seconds are over, seed 1).\n";

using Input = std::vector<std::uint8_t>;

const Input* g_running = nullptr;

extern "C" void keep_input(int signal) {
    const int fd = g_running ? open("crash-input", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : -1;
    if (fd >= 0) {
        static_cast<void>(!write(fd, g_running->data(), g_running->size()));
        close(fd);
        constexpr char kSaid[] = "the input is in crash-input\n";
        static_cast<void>(!write(STDERR_FILENO, kSaid, sizeof kSaid - 1));
    }
    std::signal(signal, SIG_DFL);
    std::raise(signal);
}

struct Options {
    double seconds = 3;
    std::uint64_t mutations = 1'000'000, seed = 1;
    std::vector<std::filesystem::path> corpus;
};

class Mutator {
  public:
    explicit Mutator(std::uint64_t seed) : engine_(seed) {}

    Input of(const Input& input, const Input& other) {
        Input out = input;
        for (std::uint64_t n = 1 + below(4); n > 0; --n) once(out, other);
        return out;
    }

  private:
    // Not a distribution of the library: those differ from one to the next.
    std::uint64_t below(std::uint64_t n) { return engine_() % n; }

    void once(Input& input, const Input& other) {
        if (input.empty()) input.push_back(0);
        const std::size_t at = below(input.size());
        switch (below(7)) {
            case 0:
                input[at] = static_cast<std::uint8_t>(input[at] ^ (1u << below(8)));
                break;
            case 1:
                input[at] = static_cast<std::uint8_t>(below(256));
                break;
            case 2:
                input.resize(at);
                break;
            case 3:
                copy_into(input, at, other);
                break;
            case 4:
                input.erase(offset(input, at), offset(input, std::min(input.size(), at + 1 + below(32))));
                break;
            case 5: {
                const Input piece(offset(input, at), offset(input, std::min(input.size(), at + 1 + below(32))));
                input.insert(offset(input, below(input.size())), piece.begin(), piece.end());
                break;
            }
            default:
                edit_number(input, at);
        }
    }

    static Input::iterator offset(Input& input, std::size_t at) {
        return input.begin() + static_cast<std::ptrdiff_t>(at);
    }

    // A piece of another input in place of what is there.
    void copy_into(Input& input, std::size_t at, const Input& other) {
        if (other.empty()) return;
        const std::size_t from = below(other.size());
        const std::size_t length = std::min({input.size() - at, other.size() - from, 1 + below(64)});
        std::copy_n(other.begin() + static_cast<std::ptrdiff_t>(from), length, offset(input, at));
    }

    // What is there, taken for a little-endian number: a little more or less, or one that is on an edge.
    void edit_number(Input& input, std::size_t at) {
        static constexpr std::array<std::uint64_t, 9> kEdges{0,          0x7f,       0xff,       0xffff, 0x7fffffff,
                                                             0xffffffff, 1ULL << 32, ~0ULL >> 1, ~0ULL};
        const std::size_t width = std::min<std::size_t>(std::size_t{1} << below(4), input.size() - at);
        std::uint64_t number = 0;
        std::memcpy(&number, &input[at], width);
        number = below(2) == 0 ? number + below(17) - 8 : kEdges[below(kEdges.size())];
        std::memcpy(&input[at], &number, width);
    }

    std::mt19937_64 engine_;
};

void run(const Input& input) {
    // A copy of just its size: a read past the end is a read past an allocation.
    const Input exact(input);
    g_running = &exact;
    LLVMFuzzerTestOneInput(exact.data(), exact.size());
    g_running = nullptr;
}

Input read_file(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    return Input(text.begin(), text.end());
}

std::vector<Input> read_corpus(const std::vector<std::filesystem::path>& places) {
    std::vector<std::filesystem::path> files;
    for (const auto& place : places) {
        if (!std::filesystem::is_directory(place)) {
            files.push_back(place);
            continue;
        }
        for (const auto& entry : std::filesystem::directory_iterator(place)) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());  // the same mutations on every machine
    std::vector<Input> out;
    for (const auto& file : files) out.push_back(read_file(file));
    return out;
}

bool parse(int count, char** words, Options& options) {
    for (int i = 1; i < count; ++i) {
        const std::string word = words[i];
        if (word == "--help" || word == "-h") return false;
        if (!word.starts_with("--")) {
            options.corpus.emplace_back(word);
            continue;
        }
        if (++i == count) return false;
        if (word == "--seconds") {
            options.seconds = std::strtod(words[i], nullptr);
        } else if (word == "--mutations") {
            options.mutations = std::strtoull(words[i], nullptr, 10);
        } else if (word == "--seed") {
            options.seed = std::strtoull(words[i], nullptr, 10);
        } else {
            return false;
        }
    }
    return !options.corpus.empty();
}

}  // namespace

int main(int count, char** words) {
    Options options;
    if (!parse(count, words, options)) {
        std::cerr << kUsage;
        return 2;
    }
    for (int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) std::signal(signal, keep_input);
    const std::vector<Input> corpus = read_corpus(options.corpus);
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(options.seconds);
    for (const Input& input : corpus) run(input);
    std::uint64_t tried = 0;
    Mutator mutator(options.seed);
    for (std::uint64_t n = 0; n < options.mutations; ++n) {
        for (std::size_t i = 0; i < corpus.size(); ++i) {
            if (std::chrono::steady_clock::now() >= end) n = options.mutations - 1, i = corpus.size() - 1;
            run(mutator.of(corpus[i], corpus[(i + n) % corpus.size()]));
            ++tried;
        }
    }
    std::cout << corpus.size() << " files, " << tried << " mutations" << std::endl;
    return corpus.empty() ? 1 : 0;  // a test of nothing is a failure
}
