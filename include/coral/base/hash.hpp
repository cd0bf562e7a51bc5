// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "coral/base/ids.hpp"

namespace coral {

// Incremental SHA-256 (OpenSSL EVP: uses SHA-NI where the CPU has it). Not thread-safe; one per stream.
class Sha256 {
  public:
    Sha256();
    ~Sha256();
    Sha256(Sha256&&) noexcept;
    Sha256& operator=(Sha256&&) noexcept;

    Sha256& update(Bytes bytes);
    Sha256& update(std::string_view text);
    // Ends the stream; call once.
    AnyId finish();

    static AnyId of(Bytes bytes);

  private:
    struct Context;
    std::unique_ptr<Context> context_;
};

// SHA-256 of a stream that comes in parts, and of parts by themselves, in one pass: one stream leaves half of a
// processor's SHA unit idle, for each round waits for the one before, so two at once cost little more than one
// (docs/decisions.md, 27). Own code where the processor has SHA-NI, else OpenSSL; the digests are the same. Not
// thread-safe; one per stream.
class DualSha256 {
  public:
    // kBest: kOpenSsl if CORAL_SHA256_PATH is "openssl" or the processor lacks the instructions.
    enum class Path { kBest, kOpenSsl };

    explicit DualSha256(Path path = Path::kBest);
    ~DualSha256();
    DualSha256(DualSha256&&) noexcept;
    DualSha256& operator=(DualSha256&&) noexcept;

    void update(Bytes part);
    // Also tells the SHA-256 of `part` alone, if that costs little here; else whoever needs it makes it elsewhere.
    std::optional<AnyId> update_both(Bytes part);
    // Ends the stream; call once.
    AnyId finish();

  private:
    struct Stream;
    std::unique_ptr<Stream> own_;  // null: openssl_ it is
    std::optional<Sha256> openssl_;
};

// A checksum against rot, never a name: its collisions are free to make.
std::uint64_t xxh3_64(Bytes bytes, std::uint64_t seed = 0);

// CRC-32 as in zip (polynomial 0xEDB88320). `crc` is that of the bytes before, 0 at the start.
std::uint32_t crc32(Bytes bytes, std::uint32_t crc = 0);
// CRC of A|B from those of A and B and the length of B.
std::uint32_t crc32_combine(std::uint32_t crc_a, std::uint32_t crc_b, std::uint64_t length_b);

}  // namespace coral
