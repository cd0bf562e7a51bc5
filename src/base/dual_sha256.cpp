// SPDX-License-Identifier: Apache-2.0
// What of DualSha256 needs no special instructions: blocks, padding (FIPS 180-4, 5.1.1) and the choice of the path.
#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "base/sha256_blocks.hpp"
#include "coral/base/hash.hpp"

#if CORAL_X86_KERNELS
#include <cpuid.h>
#endif

namespace coral {
namespace sha256 {

#if CORAL_X86_KERNELS
bool has_sha_ni() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned kExtended = 7, kSha = 1u << 29;  // CPUID.7.0:EBX, which the compilers' builtin does not know
    return __builtin_cpu_supports("avx") && __get_cpuid_count(kExtended, 0, &a, &b, &c, &d) && (b & kSha);
}
#else
bool has_sha_ni() {
    return false;
}
void compress(State&, const std::byte*, std::size_t) {}
void compress_two(State&, const std::byte*, State&, const std::byte*, std::size_t) {}
#endif

}  // namespace sha256

namespace {

bool own_path() {
    static const bool own = [] {
        const char* path = std::getenv("CORAL_SHA256_PATH");
        return sha256::has_sha_ni() && (!path || std::string_view(path) != "openssl");
    }();
    return own;
}

}  // namespace

struct DualSha256::Stream {
    sha256::State state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                           0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<std::byte, sha256::kBlock> pending{};  // the first `fill()` bytes count: they make no block yet
    std::uint64_t length = 0;                         // bytes, with those

    std::size_t fill() const { return static_cast<std::size_t>(length % sha256::kBlock); }
    void absorb(Bytes bytes);
    AnyId finish();
};

void DualSha256::Stream::absorb(Bytes bytes) {
    const std::size_t filled = fill();
    length += bytes.size();
    if (filled > 0) {
        const std::size_t taken = std::min(sha256::kBlock - filled, bytes.size());
        std::copy_n(bytes.begin(), taken, pending.begin() + static_cast<std::ptrdiff_t>(filled));
        bytes = bytes.subspan(taken);
        if (filled + taken < sha256::kBlock) return;
        sha256::compress(state, pending.data(), 1);
    }
    const std::size_t blocks = bytes.size() / sha256::kBlock;
    sha256::compress(state, bytes.data(), blocks);
    bytes = bytes.subspan(blocks * sha256::kBlock);
    std::copy(bytes.begin(), bytes.end(), pending.begin());
}

AnyId DualSha256::Stream::finish() {
    constexpr std::size_t kLengthAt = sha256::kBlock - 8;
    std::size_t filled = fill();
    pending[filled++] = std::byte{0x80};
    if (filled > kLengthAt) {
        std::fill(pending.begin() + static_cast<std::ptrdiff_t>(filled), pending.end(), std::byte{0});
        sha256::compress(state, pending.data(), 1);
        filled = 0;
    }
    std::fill(pending.begin() + static_cast<std::ptrdiff_t>(filled), pending.end(), std::byte{0});
    for (std::size_t i = 0; i < 8; ++i) pending[kLengthAt + i] = static_cast<std::byte>(length * 8 >> (56 - 8 * i));
    sha256::compress(state, pending.data(), 1);
    AnyId id;
    for (std::size_t i = 0; i < id.bytes.size(); ++i) {
        id.bytes[i] = static_cast<std::byte>(state[i / 4] >> (24 - 8 * (i % 4)));
    }
    return id;
}

DualSha256::DualSha256(Path path) {
    if (path == Path::kBest && own_path())
        own_ = std::make_unique<Stream>();
    else
        openssl_.emplace();
}
DualSha256::~DualSha256() = default;
DualSha256::DualSha256(DualSha256&&) noexcept = default;
DualSha256& DualSha256::operator=(DualSha256&&) noexcept = default;

void DualSha256::update(Bytes part) {
    if (own_)
        own_->absorb(part);
    else
        openssl_->update(part);
}

std::optional<AnyId> DualSha256::update_both(Bytes part) {
    if (!own_) {
        openssl_->update(part);
        return std::nullopt;
    }
    // The stream's blocks begin where its pending bytes have become one; the part's own begin with it.
    const std::size_t shift = std::min(sha256::kBlock - own_->fill(), part.size());
    own_->absorb(part.first(shift));
    const std::size_t blocks = (part.size() - shift) / sha256::kBlock, both = blocks * sha256::kBlock;
    Stream alone;
    sha256::compress_two(own_->state, part.data() + shift, alone.state, part.data(), blocks);
    own_->length += both;
    alone.length += both;
    own_->absorb(part.subspan(shift + both));
    alone.absorb(part.subspan(both));
    return alone.finish();
}

AnyId DualSha256::finish() {
    return own_ ? own_->finish() : openssl_->finish();
}

}  // namespace coral
