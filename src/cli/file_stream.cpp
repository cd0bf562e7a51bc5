// SPDX-License-Identifier: Apache-2.0
#include "cli/file_stream.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "coral/base/hash.hpp"

namespace coral::cli {
namespace {

constexpr std::size_t kPiece = 4u << 20;
constexpr std::uint64_t kAhead = 32u << 20;  // decoded in the background while a piece is hashed and written

}  // namespace

Status stream_file(store::Store& store, const std::shared_ptr<const store::FileRecord>& record,
                   const std::function<Status(Bytes)>& sink) {
    Buffer buffer(static_cast<std::size_t>(std::min<std::uint64_t>(record->size, kPiece)));
    Sha256 hash;
    std::uint64_t ahead = 0;  // up to where decoding has been asked for
    for (std::uint64_t at = 0; at < record->size;) {
        if (std::uint64_t wanted = std::min(record->size, at + kAhead);
            wanted >= ahead + kPiece || wanted == record->size) {
            std::uint64_t from = std::max(ahead, at);
            if (wanted > from) store.prefetch(record, from, wanted - from);
            ahead = wanted;
        }
        CORAL_TRY(std::size_t got, store.read_file(*record, at, buffer));
        if (got == 0) break;
        Bytes piece = Bytes(buffer).first(got);
        hash.update(piece);
        CORAL_CHECK(sink(piece));
        at += got;
    }
    if (FileId::from(hash.finish()) == record->id) return {};
    return make_error(
        Errc::kCorrupt,
        fmt::format("file {}: its bytes do not have this SHA-256; `coral fsck --full` tells more", record->id.hex()));
}

}  // namespace coral::cli
