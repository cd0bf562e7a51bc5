// SPDX-License-Identifier: Apache-2.0
#include "coral/base/hash.hpp"

#include <libdeflate.h>
#include <openssl/evp.h>
#include <zlib.h>

#include <stdexcept>

#include "coral/base/bytes.hpp"

#define XXH_STATIC_LINKING_ONLY
#if CORAL_XXHASH_DISPATCH
#include <xxh_x86dispatch.h>  // four times as fast as the library's plain functions, which every chunk that is read calls
#else
#include <xxhash.h>
#endif

namespace coral {

struct Sha256::Context {
    EVP_MD_CTX* evp = EVP_MD_CTX_new();
    ~Context() { EVP_MD_CTX_free(evp); }
};

namespace {

// Fetched once: EVP_sha256() looks the provider up at every init, which costs more than hashing a small tensor.
const EVP_MD* sha256_method() {
    static EVP_MD* const method = EVP_MD_fetch(nullptr, "SHA256", nullptr);
    return method;
}

}  // namespace

Sha256::Sha256() : context_(std::make_unique<Context>()) {
    if (!context_->evp || EVP_DigestInit_ex2(context_->evp, sha256_method(), nullptr) != 1) {
        throw std::runtime_error("OpenSSL offers no SHA-256");
    }
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

Sha256& Sha256::update(Bytes bytes) {
    if (EVP_DigestUpdate(context_->evp, bytes.data(), bytes.size()) != 1) throw std::runtime_error("SHA-256 update");
    return *this;
}

Sha256& Sha256::update(std::string_view text) {
    return update(as_bytes(text));
}

AnyId Sha256::finish() {
    AnyId id;
    unsigned length = 0;
    auto* out = reinterpret_cast<unsigned char*>(id.bytes.data());
    if (EVP_DigestFinal_ex(context_->evp, out, &length) != 1 || length != id.bytes.size()) {
        throw std::runtime_error("SHA-256 final");
    }
    return id;
}

AnyId Sha256::of(Bytes bytes) {
    return Sha256().update(bytes).finish();
}

std::uint64_t xxh3_64(Bytes bytes, std::uint64_t seed) {
    return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

// libdeflate folds with carry-less multiplication, ten times as fast as zlib's tables; zlib alone can combine.
std::uint32_t crc32(Bytes bytes, std::uint32_t crc) {
    return libdeflate_crc32(crc, bytes.data(), bytes.size());
}

std::uint32_t crc32_combine(std::uint32_t crc_a, std::uint32_t crc_b, std::uint64_t length_b) {
    return static_cast<std::uint32_t>(::crc32_combine64(crc_a, crc_b, static_cast<z_off64_t>(length_b)));
}

}  // namespace coral
