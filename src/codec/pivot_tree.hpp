// SPDX-License-Identifier: Apache-2.0
// Huffman codes in pivot layout: for each inner node of the tree, level by level down, one bit for every symbol that
// passes it. Decoding is a sequence of merges from the leaves up, without a data-dependent bit position
// (arXiv 2606.05765; Huffman-shaped wavelet trees, Mäkinen and Navarro 2005). Nodes whose bits are skewed are coded
// below one bit: eight of them make a byte of a stream that has a Huffman code of its own, which follows from their
// share of ones alone, and so on. The byte format is in docs/codec.md.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "codec/bit_stream.hpp"
#include "codec/kernels.hpp"
#include "coral/base/bytes.hpp"
#include "coral/base/result.hpp"

namespace coral::codec {

inline constexpr unsigned kMaxCodeLength = 12;

using Histogram = std::array<std::uint64_t, 256>;
using CodeLengths = std::array<std::uint8_t, 256>;  // 0: the symbol does not occur

// Optimal within the limit; one symbol alone gets length 1. The same for the same counts on every machine.
CodeLengths code_lengths(const Histogram& counts);

class PivotTree {
  public:
    // An empty tree codes nothing; one of a single symbol codes it in no bits.
    PivotTree() = default;
    // `counts` only decides which nodes are worth skew coding.
    PivotTree(const CodeLengths& lengths, const Histogram* counts);

    bool empty() const { return leaves_.empty(); }
    bool has(std::uint8_t symbol) const;
    std::uint64_t memory() const { return leaves_.capacity() + nodes_.capacity() * sizeof(Node); }  // beside itself

    // What a decoder needs to build it again.
    void write(Buffer& out) const;
    static Result<PivotTree> read(BitReader& in);
    std::size_t written_size() const;

    // About how many bits the symbols of this histogram take; infinite when one has no code.
    double cost(const Histogram& counts) const;

    // Appends the code of `n` symbols, all of which must have one.
    void encode(const Kernels& k, const std::uint8_t* symbols, std::size_t n, BitWriter& out) const;
    // Reads n symbols to `out`, which has kSlack bytes behind it. kCorrupt when the bytes do not suffice.
    Status decode(const Kernels& k, BitReader& in, std::size_t n, std::uint8_t* out) const;

  private:
    friend struct SkewCodes;
    struct Node {
        std::int16_t left = 0, right = 0;  // node, or ~leaf
        std::uint8_t pivot = 0;            // the first leaf on the right
        std::uint8_t first = 0, last = 0;  // its leaves, inclusive
        std::uint8_t skew = 0;             // 0: one bit a symbol; else a level of SkewCodes, + 128 when ones are many
    };
    void build(const CodeLengths& lengths);
    std::int16_t build_node(std::span<const std::uint8_t> lengths, unsigned depth, std::size_t& next);
    void choose_skew(const Histogram& counts);
    void encode_node(const Kernels& k, std::int16_t at, std::uint8_t* from, std::uint8_t* to, std::size_t n,
                     std::span<const std::uint64_t> leaf_counts, BitWriter& out) const;
    Status decode_node(const Kernels& k, BitReader& in, std::int16_t at, std::size_t n, std::uint8_t* out,
                       std::uint8_t* other, std::size_t arena) const;

    static Status decode_skewed(const Kernels& k, BitReader& in, std::uint8_t skew, std::size_t n, std::uint8_t* bits);

    std::vector<std::uint8_t> leaves_;  // symbols in order of their codes
    std::vector<Node> nodes_;           // the root first
    CodeLengths lengths_{};
};

}  // namespace coral::codec
