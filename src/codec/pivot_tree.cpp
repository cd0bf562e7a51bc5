// SPDX-License-Identifier: Apache-2.0
#include "codec/pivot_tree.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace coral::codec {
namespace {

// Shares of the rarer bit that skew codes exist for, of 65536.
constexpr std::array<std::uint16_t, 25> kShares = {80,    150,   270,   400,   560,   800,   1150,  1600,  2200,
                                                   2900,  3700,  4700,  5900,  7300,  8800,  10400, 12200, 14100,
                                                   16000, 18000, 20000, 22200, 24400, 26400, 28200};
constexpr std::size_t kSkewFrom = 512;  // bits: below, a node is not worth it
constexpr double kSkewGain = 0.96;

double entropy(double share) {
    if (share <= 0 || share >= 1) return 0;
    return -share * std::log2(share) - (1 - share) * std::log2(1 - share);
}

// The level whose code is best for this share of ones; 0: none. Integers only: readers compute it, too.
std::uint8_t skew_level(std::uint64_t ones, std::uint64_t all) {
    bool many = ones > all - ones;
    std::uint64_t rare = many ? all - ones : ones;
    // Scaled so that the product below fits.
    while (all >> 47) all >>= 1, rare >>= 1;
    std::uint64_t share = all ? (rare << 16) / all : 0;
    if (share >= 29000) return 0;
    std::size_t level = 0;
    while (level + 1 < kShares.size() && share * 2 > std::uint64_t{kShares[level]} + kShares[level + 1]) ++level;
    return static_cast<std::uint8_t>(level + 1 + (many ? 128 : 0));
}

std::size_t bytes_of(std::size_t bits) {
    return (bits + 7) / 8;
}

}  // namespace

// The trees for bytes of eight independent bits of a given share of ones.
struct SkewCodes {
    static const PivotTree& of(std::uint8_t level) {
        static const auto* const all = new SkewCodes();
        return all->trees[level - 1];
    }

    SkewCodes() {
        for (std::size_t i = 0; i < kShares.size(); ++i) {
            Histogram weights{};
            for (unsigned byte = 0; byte < 256; ++byte) {
                unsigned ones = static_cast<unsigned>(__builtin_popcount(byte));
                std::uint64_t w = 1;
                for (unsigned b = 0; b < 8; ++b) {
                    w *= b < ones ? kShares[i] : 65536u - kShares[i];
                    if (b == 2) w >>= 16;
                    if (b == 4 || b == 6) w >>= 32;
                }
                weights[byte] = std::max<std::uint64_t>(w, 1);
            }
            trees[i] = PivotTree(code_lengths(weights), nullptr);
            for (PivotTree::Node& node : trees[i].nodes_) {
                std::uint64_t left = 0, right = 0;
                for (unsigned leaf = node.first; leaf <= node.last; ++leaf) {
                    (leaf >= node.pivot ? right : left) += weights[trees[i].leaves_[leaf]];
                }
                node.skew = skew_level(right, left + right);
            }
        }
    }
    // Bits that a bit takes at this level, when ones really have its share: for choosing only.
    static double rate(std::uint8_t level) {
        static const auto rates = measure();
        return rates[(level & 127u) - 1u];
    }
    std::array<PivotTree, kShares.size()> trees;

  private:
    static std::array<double, kShares.size()> measure() {
        std::array<double, kShares.size()> rates;
        for (std::size_t i = 0; i < rates.size(); ++i) rates[i] = entropy(kShares[i] / 65536.0);
        for (int round = 0; round < 3; ++round) {
            for (std::size_t i = 0; i < rates.size(); ++i) {
                const PivotTree& tree = of(static_cast<std::uint8_t>(i + 1));
                double bits = 0;
                for (const PivotTree::Node& node : tree.nodes_) {
                    double share = 0;
                    for (unsigned leaf = node.first; leaf <= node.last; ++leaf) {
                        int ones = __builtin_popcount(tree.leaves_[leaf]);
                        double p = kShares[i] / 65536.0;
                        share += std::pow(p, ones) * std::pow(1 - p, 8 - ones);
                    }
                    bits += share * (node.skew ? rates[(node.skew & 127u) - 1u] : 1.0);
                }
                rates[i] = bits / 8;
            }
        }
        return rates;
    }
};

// ---- the tree

PivotTree::PivotTree(const CodeLengths& lengths, const Histogram* counts) {
    build(lengths);
    if (counts) choose_skew(*counts);
}

void PivotTree::build(const CodeLengths& lengths) {
    lengths_ = lengths;
    for (unsigned length = 1; length <= kMaxCodeLength; ++length) {
        for (unsigned s = 0; s < 256; ++s) {
            if (lengths[s] == length) leaves_.push_back(static_cast<std::uint8_t>(s));
        }
    }
    if (leaves_.size() < 2) return;
    std::vector<std::uint8_t> in_order;
    for (std::uint8_t s : leaves_) in_order.push_back(lengths[s]);
    nodes_.reserve(leaves_.size());
    std::size_t next = 0;
    build_node(in_order, 0, next);
}

std::int16_t PivotTree::build_node(std::span<const std::uint8_t> lengths, unsigned depth, std::size_t& next) {
    if (lengths[next] == depth) return static_cast<std::int16_t>(~static_cast<std::int16_t>(next++));
    auto at = static_cast<std::int16_t>(nodes_.size());
    nodes_.emplace_back();
    Node node;
    node.first = static_cast<std::uint8_t>(next);
    node.left = build_node(lengths, depth + 1, next);
    node.pivot = static_cast<std::uint8_t>(next);
    node.right = build_node(lengths, depth + 1, next);
    node.last = static_cast<std::uint8_t>(next - 1);
    nodes_[static_cast<std::size_t>(at)] = node;
    return at;
}

void PivotTree::choose_skew(const Histogram& counts) {
    for (Node& node : nodes_) {
        std::uint64_t left = 0, right = 0;
        for (unsigned leaf = node.first; leaf <= node.last; ++leaf) {
            (leaf >= node.pivot ? right : left) += counts[leaves_[leaf]];
        }
        if (left + right < 2 * kSkewFrom) continue;
        std::uint8_t level = skew_level(right, left + right);
        // Slower to read: it must be worth 1 %, and its entry in the table.
        auto all = static_cast<double>(left + right);
        if (level && all * (kSkewGain - SkewCodes::rate(level)) > 32) node.skew = level;
    }
}

bool PivotTree::has(std::uint8_t symbol) const {
    return lengths_[symbol] != 0;
}

double PivotTree::cost(const Histogram& counts) const {
    double bits = 0;
    for (unsigned s = 0; s < 256; ++s) {
        if (counts[s] > 0 && lengths_[s] == 0) return std::numeric_limits<double>::infinity();
    }
    for (const Node& node : nodes_) {
        std::uint64_t left = 0, right = 0;
        for (unsigned leaf = node.first; leaf <= node.last; ++leaf) {
            (leaf >= node.pivot ? right : left) += counts[leaves_[leaf]];
        }
        auto all = static_cast<double>(left + right);
        bits += node.skew ? 1.01 * all * entropy(static_cast<double>(right) / std::max(all, 1.0)) : all;
    }
    return bits;
}

// ---- on disk: lengths in nibbles (0–12; 13, n: n + 3 absent; 14, n, m: n + 16 m + 19 absent; 15, n: n + 3 as before),
// then the number of skewed nodes, and number and level of each.

void PivotTree::write(Buffer& out) const {
    std::vector<std::uint8_t> nibbles;
    for (unsigned s = 0; s < 256;) {
        unsigned run = 1;
        while (s + run < 256 && lengths_[s + run] == lengths_[s]) ++run;
        if (lengths_[s] == 0 && run >= 19) {
            unsigned n = std::min(run, 274u) - 19;
            nibbles.insert(nibbles.end(), {14, static_cast<std::uint8_t>(n & 15), static_cast<std::uint8_t>(n >> 4)});
            s += n + 19;
        } else if (lengths_[s] == 0 && run >= 3) {
            unsigned n = std::min(run, 18u) - 3;
            nibbles.insert(nibbles.end(), {13, static_cast<std::uint8_t>(n)});
            s += n + 3;
        } else if (run >= 4) {
            unsigned n = std::min(run - 1, 18u) - 3;
            nibbles.insert(nibbles.end(), {lengths_[s], 15, static_cast<std::uint8_t>(n)});
            s += n + 4;
        } else {
            nibbles.push_back(lengths_[s++]);
        }
    }
    if (nibbles.size() % 2 != 0) nibbles.push_back(0);
    for (std::size_t i = 0; i < nibbles.size(); i += 2) {
        out.push_back(static_cast<std::byte>(nibbles[i] | nibbles[i + 1] << 4));
    }
    std::size_t skewed = 0;
    for (const Node& node : nodes_) skewed += node.skew != 0;
    out.push_back(static_cast<std::byte>(skewed));
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
        if (nodes_[i].skew == 0) continue;
        out.push_back(static_cast<std::byte>(i));
        out.push_back(static_cast<std::byte>(nodes_[i].skew));
    }
}

std::size_t PivotTree::written_size() const {
    Buffer out;
    write(out);
    return out.size();
}

Result<PivotTree> PivotTree::read(BitReader& in) {
    auto bad = [](const char* what) { return make_error(Errc::kCorrupt, what); };
    CodeLengths lengths{};
    std::uint8_t byte = 0;
    bool half = false;
    auto nibble = [&]() -> unsigned {
        if (half) {
            half = false;
            return byte >> 4;
        }
        const std::uint8_t* next = in.take_bytes(1);
        byte = next ? *next : 0;
        half = true;
        return byte & 15;
    };
    std::uint32_t kraft = 0;
    for (unsigned s = 0; s < 256;) {
        if (!half && in.bytes_left() == 0) return bad("code table is cut off");
        unsigned v = nibble(), run = 1;
        std::uint8_t length = static_cast<std::uint8_t>(v);
        if (v == 13) {
            run = nibble() + 3;
            length = 0;
        } else if (v == 14) {
            run = nibble();
            run += 16 * nibble() + 19;
            length = 0;
        } else if (v == 15) {
            if (s == 0) return bad("code table repeats nothing");
            run = nibble() + 3;
            length = lengths[s - 1];
        }
        if (run > 256 - s) return bad("code table is too long");
        for (; run > 0; --run) {
            lengths[s++] = length;
            if (length) kraft += 1u << (kMaxCodeLength - length);
        }
    }
    std::size_t used =
        static_cast<std::size_t>(std::count_if(lengths.begin(), lengths.end(), [](auto l) { return l; }));
    bool complete = kraft == 1u << kMaxCodeLength;
    if (used > 1 && !complete) return bad("code table is no complete prefix code");
    PivotTree tree(lengths, nullptr);
    const std::uint8_t* count = in.take_bytes(1);
    const std::uint8_t* pairs = count ? in.take_bytes(2 * std::size_t{*count}) : nullptr;
    if (!pairs) return bad("code table is cut off");
    for (std::size_t i = 0; i < *count; ++i) {
        std::uint8_t node = pairs[2 * i], skew = pairs[2 * i + 1];
        if (node >= tree.nodes_.size() || (skew & 127u) == 0 || (skew & 127u) > kShares.size()) {
            return bad("code table names no node or level");
        }
        tree.nodes_[node].skew = skew;
    }
    return tree;
}

// ---- coding

namespace {

// Two arrays that the levels of a tree use in turn. One pair a depth of nesting: a skewed node's bits are coded while
// the arrays of the tree around them are in use.
struct Scratch {
    std::vector<std::uint8_t> a, b, bits;
};
Scratch& scratch(unsigned nesting) {
    thread_local std::array<Scratch, 8> all;
    return all[nesting];
}
thread_local unsigned nesting = 0;

struct Nested {
    Nested() { ++nesting; }
    ~Nested() { --nesting; }
};

// Room without initialising what is there: these grow once per thread.
std::uint8_t* room(std::vector<std::uint8_t>& v, std::size_t n) {
    if (v.size() < n + kSlack) v.resize(n + kSlack);
    return v.data();
}

}  // namespace

void PivotTree::encode(const Kernels& k, const std::uint8_t* symbols, std::size_t n, BitWriter& out) const {
    if (n == 0 || nodes_.empty()) return;
    Scratch& s = scratch(nesting);
    Nested deeper;
    std::uint8_t* from = room(s.a, n);
    std::uint8_t* to = room(s.b, n);
    room(s.bits, bytes_of(n));
    std::array<std::uint8_t, 256> leaf_of{};
    for (std::size_t i = 0; i < leaves_.size(); ++i) leaf_of[leaves_[i]] = static_cast<std::uint8_t>(i);
    k.remap(symbols, n, leaf_of.data(), from);
    std::array<std::uint64_t, 256> counts{};
    {
        std::array<std::array<std::uint32_t, 256>, 4> part{};
        for (std::size_t i = 0; i < n; ++i) ++part[i % 4][from[i]];
        for (unsigned leaf = 0; leaf < 256; ++leaf) {
            counts[leaf] = std::uint64_t{part[0][leaf]} + part[1][leaf] + part[2][leaf] + part[3][leaf];
        }
    }
    encode_node(k, 0, from, to, n, counts, out);
}

void PivotTree::encode_node(const Kernels& k, std::int16_t at, std::uint8_t* from, std::uint8_t* to, std::size_t n,
                            std::span<const std::uint64_t> leaf_counts, BitWriter& out) const {
    if (at < 0 || n == 0) return;
    const Node& node = nodes_[static_cast<std::size_t>(at)];
    std::size_t lefts = 0;
    for (unsigned leaf = node.first; leaf < node.pivot; ++leaf) lefts += leaf_counts[leaf];
    std::uint8_t* bits = scratch(nesting - 1).bits.data();
    k.partition(from, n, node.pivot, to, to + lefts, bits);
    if (node.skew && n >= kSkewFrom) {
        if (node.skew & 128u) {
            for (std::size_t i = 0; i < bytes_of(n); ++i) bits[i] = static_cast<std::uint8_t>(~bits[i]);
            if (n % 8) bits[n / 8] = static_cast<std::uint8_t>(bits[n / 8] & ((1u << n % 8) - 1));
        }
        SkewCodes::of(node.skew & 127u).encode(k, bits, bytes_of(n), out);
    } else {
        out.put(bits, n);
    }
    encode_node(k, node.left, to, from, lefts, leaf_counts, out);
    encode_node(k, node.right, to + lefts, from + lefts, n - lefts, leaf_counts, out);
}

Status PivotTree::decode(const Kernels& k, BitReader& in, std::size_t n, std::uint8_t* out) const {
    if (n == 0) return {};
    if (leaves_.empty()) return make_error(Errc::kCorrupt, "symbols without a code");
    if (nodes_.empty()) {
        std::memset(out, leaves_[0], n);
        return {};
    }
    Scratch& s = scratch(nesting);
    Nested deeper;
    // The bits of a node stay until its children are decoded: those of at most one node of each level at a time.
    room(s.bits, (bytes_of(n) + 16) * (kMaxCodeLength + 1));
    return decode_node(k, in, 0, n, out, room(s.a, n), 0);
}

Status PivotTree::decode_node(const Kernels& k, BitReader& in, std::int16_t at, std::size_t n, std::uint8_t* out,
                              std::uint8_t* other, std::size_t arena) const {
    const Node& node = nodes_[static_cast<std::size_t>(at)];
    std::uint8_t* bits = scratch(nesting - 1).bits.data() + arena;
    arena += bytes_of(n) + 16;
    std::size_t rights = 0;
    if (node.skew && n >= kSkewFrom) {
        CORAL_CHECK(decode_skewed(k, in, node.skew, n, bits));
        rights = k.popcount(bits, n);
    } else if (!in.take_counted(k, n, bits, rights)) {
        return make_error(Errc::kCorrupt, "coded symbols are cut off");
    }
    const std::size_t lefts = n - rights;
    Side left, right;
    auto child = [&](std::int16_t next, std::size_t count, std::size_t offset, Side& side) -> Status {
        if (next < 0) {
            side.value = leaves_[static_cast<std::size_t>(~next)];
            return {};
        }
        side.stream = other + offset;
        if (count == 0) return {};
        return decode_node(k, in, next, count, other + offset, out + offset, arena);
    };
    CORAL_CHECK(child(node.left, lefts, 0, left));
    CORAL_CHECK(child(node.right, rights, lefts, right));
    k.merge(bits, n, left, right, out);
    return {};
}

// The bytes are symbols of a tree of their own; `bits` has room for kSlack bytes behind them only at its array's end,
// so they are decoded elsewhere first.
Status PivotTree::decode_skewed(const Kernels& k, BitReader& in, std::uint8_t skew, std::size_t n, std::uint8_t* bits) {
    std::uint8_t* symbols = room(scratch(nesting).b, bytes_of(n));
    CORAL_CHECK(SkewCodes::of(skew & 127u).decode(k, in, bytes_of(n), symbols));
    std::uint8_t flip = skew & 128u ? 255 : 0;
    for (std::size_t i = 0; i < bytes_of(n); ++i) bits[i] = static_cast<std::uint8_t>(symbols[i] ^ flip);
    if (n % 8) bits[n / 8] = static_cast<std::uint8_t>(bits[n / 8] & ((1u << n % 8) - 1));
    return {};
}

}  // namespace coral::codec
