// SPDX-License-Identifier: Apache-2.0
#include "codec/zstd_context.hpp"

#include <fmt/format.h>
#include <zstd.h>

#include <memory>
#include <new>

namespace coral::codec {
namespace {

struct FreeCompressor {
    void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
};
struct FreeDecompressor {
    void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

ZSTD_CCtx* compressor() {
    thread_local std::unique_ptr<ZSTD_CCtx, FreeCompressor> context(ZSTD_createCCtx());
    if (!context) throw std::bad_alloc();
    return context.get();
}

ZSTD_DCtx* decompressor() {
    thread_local std::unique_ptr<ZSTD_DCtx, FreeDecompressor> context(ZSTD_createDCtx());
    if (!context) throw std::bad_alloc();
    return context.get();
}

}  // namespace

std::size_t zstd_compress(Bytes raw, int level, MutableBytes out) {
    std::size_t got = ZSTD_compressCCtx(compressor(), out.data(), out.size(), raw.data(), raw.size(), level);
    return ZSTD_isError(got) ? 0 : got;
}

std::size_t zstd_bound(std::size_t raw_length) {
    return ZSTD_compressBound(raw_length);
}

Status zstd_decompress(Bytes stored, int window_log, MutableBytes out) {
    ZSTD_DCtx* context = decompressor();
    ZSTD_DCtx_reset(context, ZSTD_reset_session_and_parameters);
    if (ZSTD_isError(ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, window_log))) {
        return make_error(Errc::kInternal, fmt::format("zstd refuses a window of 2^{}", window_log));
    }
    // The streaming interface is the one that honours the window limit; with all input and output at hand it is one
    // pass.
    std::byte nothing{};
    ZSTD_outBuffer output{out.empty() ? &nothing : out.data(), out.size(), 0};
    ZSTD_inBuffer input{stored.data(), stored.size(), 0};
    std::size_t hint = ZSTD_decompressStream(context, &output, &input);
    if (ZSTD_isError(hint)) {
        return make_error(Errc::kCorrupt, fmt::format("zstd: {}", ZSTD_getErrorName(hint)));
    }
    if (hint != 0 || output.pos != out.size() || input.pos != stored.size()) {
        return make_error(Errc::kCorrupt, fmt::format("zstd: {} bytes instead of {}", output.pos, out.size()));
    }
    return {};
}

std::optional<std::uint64_t> zstd_claimed_length(Bytes stored) {
    unsigned long long length = ZSTD_getFrameContentSize(stored.data(), stored.size());
    if (length == ZSTD_CONTENTSIZE_UNKNOWN || length == ZSTD_CONTENTSIZE_ERROR) return std::nullopt;
    return length;
}

}  // namespace coral::codec
