// SPDX-License-Identifier: Apache-2.0
// Loops over elements, in plain C++ that compilers vectorise. Included once per instruction set, inside an anonymous
// namespace, after its target options: all copies give the same results (integers, and single IEEE operations).

template <class T>
inline T load_at(const std::uint8_t* p, std::size_t i) {
    T v;
    std::memcpy(&v, p + i * sizeof(T), sizeof(T));
    return v;
}
template <class T>
inline void store_at(std::uint8_t* p, std::size_t i, T v) {
    std::memcpy(p + i * sizeof(T), &v, sizeof(T));
}
template <class T>
inline constexpr unsigned kBits = sizeof(T) * 8;

template <class T>
inline T rotate_left(T v) {
    return static_cast<T>(static_cast<T>(v << 1) | static_cast<T>(v >> (kBits<T> - 1)));
}
template <class T>
inline T rotate_right(T v) {
    return static_cast<T>(static_cast<T>(v >> 1) | static_cast<T>(v << (kBits<T> - 1)));
}

template <class T>
void split_loop(const std::uint8_t* in, std::size_t n, bool rotate, std::uint8_t* const* planes) {
    for (std::size_t b = 0; b < sizeof(T); ++b) {
        std::uint8_t* __restrict out = planes[b];
        unsigned shift = static_cast<unsigned>(8 * (sizeof(T) - 1 - b));
        if (rotate) {
            for (std::size_t i = 0; i < n; ++i) {
                out[i] = static_cast<std::uint8_t>(rotate_left(load_at<T>(in, i)) >> shift);
            }
        } else {
            for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<std::uint8_t>(load_at<T>(in, i) >> shift);
        }
    }
}

template <class T>
void join_loop(const std::uint8_t* const* planes, std::size_t n, bool rotate, std::uint8_t* __restrict out) {
    for (std::size_t i = 0; i < n; ++i) {
        T v = 0;
        for (std::size_t b = 0; b < sizeof(T); ++b) {
            if constexpr (sizeof(T) > 1) v = static_cast<T>(v << 8);
            v = static_cast<T>(v | planes[b][i]);
        }
        store_at<T>(out, i, rotate ? rotate_right(v) : v);
    }
}

template <class T>
void keys_loop(const std::uint8_t* base, std::size_t n, bool is_float, std::uint8_t* __restrict out) {
    for (std::size_t i = 0; i < n; ++i) {
        T v = load_at<T>(base, i);
        T r = is_float ? rotate_left(v) : v;
        out[i] = static_cast<std::uint8_t>(r >> (kBits<T> - 8));
    }
}

inline void either_loop(const std::uint8_t* in, std::size_t n, std::uint8_t* inout) {
    for (std::size_t i = 0; i < n; ++i) inout[i] = static_cast<std::uint8_t>(inout[i] | in[i]);
}

template <class T>
void mantissas_loop(const std::uint8_t* base, std::size_t n, bool is_float, std::uint8_t* __restrict out) {
    if constexpr (sizeof(T) == 1) {
        for (std::size_t i = 0; i < n; ++i) out[i] = 0;  // nothing is below
    } else {
        for (std::size_t i = 0; i < n; ++i) {
            T v = load_at<T>(base, i);
            T r = is_float ? rotate_left(v) : v;
            out[i] = static_cast<std::uint8_t>(static_cast<T>(r >> (kBits<T> - 13)) & 31u);
        }
    }
}

// Floats to integers of the same order.
template <class T>
inline T ordered(T v, bool is_float) {
    constexpr T kTop = static_cast<T>(T{1} << (kBits<T> - 1));
    T sign = static_cast<T>(T{0} - static_cast<T>(v >> (kBits<T> - 1)));
    return is_float ? static_cast<T>(v ^ static_cast<T>(sign | kTop)) : v;
}
template <class T>
inline T unordered(T v, bool is_float) {
    constexpr T kTop = static_cast<T>(T{1} << (kBits<T> - 1));
    T positive = static_cast<T>(T{0} - static_cast<T>(v >> (kBits<T> - 1)));
    return is_float ? static_cast<T>(v ^ static_cast<T>(static_cast<T>(~positive) | kTop)) : v;
}

// Bit length of v. Through a float's exponent, which vectorises everywhere; clearing the bit below the highest keeps
// the conversion from rounding up to the next power, and shifting by one keeps it signed, as old instructions want it.
inline std::uint32_t bit_length(std::uint32_t v) {
    std::uint32_t low = v & 1, half = v >> 1;
    half &= ~(half >> 1);
    std::uint32_t bits = std::bit_cast<std::uint32_t>(static_cast<float>(static_cast<std::int32_t>(half)));
    std::uint32_t length = (bits >> 23) - 125u;
    return half == 0 ? low : length;
}
inline std::uint64_t bit_length(std::uint64_t v) {
    return v ? 64u - static_cast<unsigned>(__builtin_clzll(v)) : 0u;
}

// The first 256 elements of a chunk at a time: what lies between the loops stays in the first-level cache.
inline constexpr std::size_t kBlock = 256;

template <class T, bool kFloat>
inline void to_symbols(const std::uint8_t* in, const std::uint8_t* base, std::size_t n, Buckets buckets,
                       std::uint8_t* __restrict symbols, std::uint8_t* __restrict count,
                       std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>* __restrict rest) {
    using Wide = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
    const Wide direct = buckets.direct, top = buckets.top;
    const Wide limit = Wide{1} << direct, top_mask = (Wide{1} << top) - 1;
    for (std::size_t i = 0; i < n; ++i) {
        T a = load_at<T>(in, i), b = load_at<T>(base, i);
        T d = static_cast<T>(ordered(a, kFloat) - ordered(b, kFloat));
        T sign = static_cast<T>(T{0} - static_cast<T>(d >> (kBits<T> - 1)));
        Wide w = static_cast<T>(static_cast<T>(d << 1) ^ sign);
        Wide length = bit_length(w);
        bool zero = (a == 0) & (b != 0), small = w < limit;
        Wide r = small ? Wide{0} : length - 1 - top;
        Wide s = small ? w : limit + ((length - direct - 1) << top) + ((w >> r) & top_mask);
        r = zero ? Wide{0} : r;
        symbols[i] = static_cast<std::uint8_t>(zero ? Wide{kZeroSymbol} : s);
        count[i] = static_cast<std::uint8_t>(r);
        rest[i] = w & ((Wide{1} << r) - 1);
    }
}

template <class T>
void to_delta_loop(const std::uint8_t* in, const std::uint8_t* base, std::size_t n, bool is_float, Buckets buckets,
                   const DeltaArrays& out) {
    using Wide = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
    alignas(64) Wide rest[kBlock];
    alignas(64) std::uint8_t count[kBlock];
    for (std::size_t at = 0; at < n; at += kBlock) {
        const std::size_t m = n - at < kBlock ? n - at : kBlock;
        const std::uint8_t* a = in + at * sizeof(T);
        const std::uint8_t* b = base + at * sizeof(T);
        if (is_float)
            to_symbols<T, true>(a, b, m, buckets, out.symbol + at, count, rest);
        else
            to_symbols<T, false>(a, b, m, buckets, out.symbol + at, count, rest);
        if (!out.part) continue;
        std::uint8_t* __restrict parts = out.part + at;
        for (std::size_t i = 0; i < m; ++i) parts[i] = static_cast<std::uint8_t>(rest[i] >> (count[i] & 0x38u));
        for (unsigned j = 0; j < sizeof(T) && out.extra[j]; ++j) {
            std::uint8_t* __restrict bytes = out.extra[j] + at;
            for (std::size_t i = 0; i < m; ++i) bytes[i] = static_cast<std::uint8_t>(rest[i] >> (8 * j));
        }
    }
}

template <class T, bool kFloat>
inline void to_values(const std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>* __restrict z,
                      const std::uint8_t* symbols, const std::uint8_t* base, std::size_t n,
                      std::uint8_t* __restrict out) {
    for (std::size_t i = 0; i < n; ++i) {
        T v = static_cast<T>(z[i]);
        T d = static_cast<T>(static_cast<T>(v >> 1) ^ static_cast<T>(T{0} - static_cast<T>(v & 1)));
        T a = unordered(static_cast<T>(ordered(load_at<T>(base, i), kFloat) + d), kFloat);
        store_at<T>(out, i, symbols[i] == kZeroSymbol ? T{0} : a);
    }
}

template <class T>
void from_delta_loop(const DeltaArrays& in, const std::uint8_t* lead, const std::uint8_t* count,
                     const std::uint8_t* base, std::size_t n, bool is_float, std::uint8_t* out) {
    using Wide = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
    alignas(64) Wide z[kBlock];
    for (std::size_t at = 0; at < n; at += kBlock) {
        const std::size_t m = n - at < kBlock ? n - at : kBlock;
        for (std::size_t i = 0; i < m; ++i) {
            Wide r = count[at + i];
            z[i] = (Wide{lead[at + i]} << r) | (Wide{in.part[at + i]} << (r & 0x38u));
        }
        for (unsigned j = 0; j < sizeof(T) && in.extra[j]; ++j) {
            const std::uint8_t* bytes = in.extra[j] + at;
            for (std::size_t i = 0; i < m; ++i) z[i] |= Wide{bytes[i]} << (8 * j);
        }
        const std::uint8_t* b = base + at * sizeof(T);
        if (is_float)
            to_values<T, true>(z, in.symbol + at, b, m, out + at * sizeof(T));
        else
            to_values<T, false>(z, in.symbol + at, b, m, out + at * sizeof(T));
    }
}

template <class T, bool kFloat>
inline void predict_values(const std::uint8_t* base, const std::uint8_t* before, std::size_t n, unsigned again,
                           std::uint8_t* __restrict out, std::uint8_t* __restrict lengths) {
    using Wide = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
    using Signed = std::conditional_t<sizeof(T) == 8, std::int64_t, std::int32_t>;
    // Larger steps change the sign or many exponents: these are no steps of a gradient, and do not come again.
    constexpr Wide kLongest = kBits<T> * 3 / 4 - 1;
    for (std::size_t i = 0; i < n; ++i) {
        T b = ordered(load_at<T>(base, i), kFloat), c = ordered(load_at<T>(before, i), kFloat);
        T d = static_cast<T>(b - c);
        T sign = static_cast<T>(T{0} - static_cast<T>(d >> (kBits<T> - 1)));
        Wide length = bit_length(Wide{static_cast<T>(static_cast<T>(d << 1) ^ sign)});
        Signed step = static_cast<std::make_signed_t<T>>(d);
        step = length <= kLongest ? step : 0;
        Signed more = (step * static_cast<Signed>(again)) >> 4;
        lengths[i] = static_cast<std::uint8_t>(length < 31 ? length : 31);
        store_at<T>(out, i, unordered(static_cast<T>(b + static_cast<T>(more)), kFloat));
    }
}

template <class T>
void predict_loop(const std::uint8_t* base, const std::uint8_t* before, std::size_t n, bool is_float, unsigned again,
                  std::uint8_t* out, std::uint8_t* lengths) {
    if (is_float)
        predict_values<T, true>(base, before, n, again, out, lengths);
    else
        predict_values<T, false>(base, before, n, again, out, lengths);
}

inline void scale_loop(const std::uint8_t* in, std::size_t n, float factor, std::uint8_t* __restrict out) {
    for (std::size_t i = 0; i < n; ++i) {
        float v = load_at<float>(in, i);
        std::uint32_t bits = load_at<std::uint32_t>(in, i);
        float scaled = v * factor;
        std::uint32_t result;
        std::memcpy(&result, &scaled, 4);
        // NaN payloads, denormals and what becomes one may depend on the processor's modes: these stay as they are.
        std::uint32_t exponent = (bits >> 23) & 0xff, after = (result >> 23) & 0xff;
        bool plain = exponent != 0 && exponent != 0xff && after != 0 && after != 0xff;
        store_at<std::uint32_t>(out, i, plain ? result : bits);
    }
}

template <class T>
void lookup_loop(const std::uint8_t* number, std::size_t n, const std::uint64_t* table256, std::uint8_t* out) {
    T table[256];
    for (unsigned i = 0; i < 256; ++i) table[i] = static_cast<T>(table256[i]);
    for (std::size_t i = 0; i < n; ++i) store_at<T>(out, i, table[number[i]]);
}

// Denormals count as zero, in what comes in and in what comes out of each operation: how they are treated is a mode of
// the processor.
inline float flushed(float v) {
    std::uint32_t bits = std::bit_cast<std::uint32_t>(v);
    return std::bit_cast<float>((bits & 0x7f800000u) != 0 ? bits : 0u);
}

template <Formula kFormula>
void adam_formula(const AdamStep& step, const std::uint8_t* base, const std::uint8_t* first, const std::uint8_t* second,
                  std::size_t n, std::uint8_t* __restrict out) {
    const float a = step.a, b = step.b, c = step.c;
    for (std::size_t i = 0; i < n; ++i) {
        const float x = flushed(load_at<float>(first, i)), y = flushed(load_at<float>(second, i));
        const std::uint32_t bits = load_at<std::uint32_t>(base, i);
        const float scaled = flushed(flushed(load_at<float>(base, i)) * a);
        float made;
        if constexpr (kFormula == Formula::kAdamWeights) {
            const float root = flushed(__builtin_sqrtf(y) + c);
            made = scaled - flushed(flushed(x * b) / root);
        } else {
            const float gradient = flushed(x - flushed(y * c));
            made = scaled + flushed(flushed(gradient * b) * gradient);
        }
        const std::uint32_t result = std::bit_cast<std::uint32_t>(made);
        const std::uint32_t exponent = (bits >> 23) & 0xff, after = (result >> 23) & 0xff;
        const bool plain = (exponent != 0) & (exponent != 0xff) & (after != 0) & (after != 0xff);
        store_at<std::uint32_t>(out, i, plain ? result : bits);
    }
}

inline void adam_loop(const AdamStep& step, const std::uint8_t* base, const std::uint8_t* first,
                      const std::uint8_t* second, std::size_t n, std::uint8_t* out) {
    if (step.formula == Formula::kAdamWeights)
        adam_formula<Formula::kAdamWeights>(step, base, first, second, n, out);
    else
        adam_formula<Formula::kAdamVariance>(step, base, first, second, n, out);
}

#define CORAL_ELEMENT_KERNELS                                                                                    \
    {split_loop<std::uint8_t>, split_loop<std::uint16_t>, split_loop<std::uint32_t>, split_loop<std::uint64_t>}, \
        {join_loop<std::uint8_t>, join_loop<std::uint16_t>, join_loop<std::uint32_t>, join_loop<std::uint64_t>}, \
        {keys_loop<std::uint8_t>, keys_loop<std::uint16_t>, keys_loop<std::uint32_t>, keys_loop<std::uint64_t>}, \
        {mantissas_loop<std::uint8_t>, mantissas_loop<std::uint16_t>, mantissas_loop<std::uint32_t>,             \
         mantissas_loop<std::uint64_t>},                                                                         \
        {to_delta_loop<std::uint8_t>, to_delta_loop<std::uint16_t>, to_delta_loop<std::uint32_t>,                \
         to_delta_loop<std::uint64_t>},                                                                          \
        {from_delta_loop<std::uint8_t>, from_delta_loop<std::uint16_t>, from_delta_loop<std::uint32_t>,          \
         from_delta_loop<std::uint64_t>},                                                                        \
        {predict_loop<std::uint8_t>, predict_loop<std::uint16_t>, predict_loop<std::uint32_t>,                   \
         predict_loop<std::uint64_t>},                                                                           \
        scale_loop,                                                                                              \
        {lookup_loop<std::uint8_t>, lookup_loop<std::uint16_t>, lookup_loop<std::uint32_t>,                      \
         lookup_loop<std::uint64_t>},                                                                            \
        adam_loop
