// SPDX-License-Identifier: Apache-2.0
// Bits one behind the other, the lowest of a byte first. Strings of them are long; they are shifted, 64 at a time.
#pragma once

#include <cstdint>
#include <cstring>

#include "codec/kernels.hpp"
#include "coral/base/bytes.hpp"

namespace coral::codec {

inline std::uint64_t low_bits(std::uint64_t word, std::size_t n) {
    return n >= 64 ? word : word & ((std::uint64_t{1} << n) - 1);
}

class BitWriter {
  public:
    explicit BitWriter(Buffer& out) : out_(out) {}
    ~BitWriter() { align(); }
    BitWriter(const BitWriter&) = delete;
    BitWriter& operator=(const BitWriter&) = delete;

    // `bits` is ceil(n / 8) bytes.
    void put(const std::uint8_t* bits, std::size_t n) {
        for (std::size_t at = 0; at < n; at += 64) {
            std::uint64_t word = 0;
            std::memcpy(&word, bits + at / 8, n - at >= 64 ? 8 : (n - at + 7) / 8);
            put_word(low_bits(word, n - at), n - at >= 64 ? 64 : n - at);
        }
    }
    void put_byte(unsigned byte) { put_word(byte & 255u, 8); }
    // From the next byte on.
    void put_bytes(const std::uint8_t* bytes, std::size_t n) {
        align();
        const auto* p = reinterpret_cast<const std::byte*>(bytes);
        out_.insert(out_.end(), p, p + n);
    }
    void align() {
        append((filled_ + 7) / 8);
        pending_ = 0;
        filled_ = 0;
    }

  private:
    void put_word(std::uint64_t word, std::size_t n) {
        pending_ |= word << filled_;
        if (filled_ + n < 64) {
            filled_ += n;
            return;
        }
        append(8);
        pending_ = filled_ ? word >> (64 - filled_) : 0;
        filled_ = filled_ + n - 64;
        if (filled_ == 0) pending_ = 0;
    }
    void append(std::size_t bytes) {
        std::byte raw[8];
        std::memcpy(raw, &pending_, 8);
        out_.insert(out_.end(), raw, raw + bytes);
    }

    Buffer& out_;
    std::uint64_t pending_ = 0;
    std::size_t filled_ = 0;
};

// Reads from bytes that nobody vouches for.
class BitReader {
  public:
    explicit BitReader(Bytes bytes)
        : bytes_(bytes.empty() ? &kNone : reinterpret_cast<const std::uint8_t*>(bytes.data())), size_(bytes.size()) {}

    // Copies n bits to out, which has room for n / 8 + 8 bytes; false when fewer are left. Unused bits are zero.
    bool take(std::size_t n, std::uint8_t* out) {
        if (n > 8 * size_ - at_) return false;
        for (std::size_t done = 0; done < n; done += 64) {
            std::uint64_t word = low_bits(word_at(at_ + done), n - done);
            std::memcpy(out + done / 8, &word, 8);
        }
        at_ += n;
        return true;
    }
    // The same, and how many of them are set. `out` has room for whole blocks of 64 bytes.
    bool take_counted(const Kernels& k, std::size_t n, std::uint8_t* out, std::size_t& ones) {
        if (size_ - at_ / 8 >= (n + 7) / 8 + kTakeBeyond) {
            ones = k.take(bytes_ + at_ / 8, static_cast<unsigned>(at_ % 8), n, out);
            at_ += n;
            return true;
        }
        if (!take(n, out)) return false;
        ones = k.popcount(out, n);
        return true;
    }
    // Whole bytes, from the next one on; null when fewer are left.
    const std::uint8_t* take_bytes(std::size_t n) {
        align();
        if (n > bytes_left()) return nullptr;
        const std::uint8_t* here = bytes_ + at_ / 8;
        at_ += 8 * n;
        return here;
    }
    void align() { at_ = (at_ + 7) / 8 * 8; }
    // Of an aligned reader.
    std::size_t bytes_left() const { return size_ - at_ / 8; }
    const std::uint8_t* here() const { return bytes_ + at_ / 8; }
    // All is read, but for the last byte's spare bits.
    bool at_end() const { return (at_ + 7) / 8 == size_; }

  private:
    std::uint64_t word_at(std::size_t bit) const {
        std::size_t byte = bit / 8, shift = bit % 8, left = size_ - byte;
        std::uint64_t word = 0, more = 0;
        if (left >= 9) {
            std::memcpy(&word, bytes_ + byte, 8);
            more = bytes_[byte + 8];
        } else {
            std::memcpy(&word, bytes_ + byte, left < 8 ? left : 8);
        }
        return shift ? (word >> shift) | (more << (64 - shift)) : word;
    }

    static constexpr std::uint8_t kNone = 0;  // an address for no bytes: null says that there are too few
    const std::uint8_t* bytes_;
    std::size_t size_, at_ = 0;  // at_ in bits
};

}  // namespace coral::codec
