// SPDX-License-Identifier: Apache-2.0
#include "codec/delta_base.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "codec/float_cast.hpp"

namespace coral::codec {
namespace {

std::uint8_t* array(unsigned number, std::size_t bytes) {
    thread_local std::array<std::vector<std::uint8_t>, 5> arrays;
    std::vector<std::uint8_t>& v = arrays[number];
    if (v.size() < bytes + kSlack) v.resize(bytes + kSlack);
    return v.data();
}
constexpr unsigned kValues = 0, kKeys = 1, kPredicted = 2, kLengths = 3, kExpected = 4;

const std::uint8_t* data(Bytes bytes) {
    return reinterpret_cast<const std::uint8_t*>(bytes.data());
}

}  // namespace

PreparedBase prepare_base(const Kernels& k, const DeltaModel& model, const Hint& hint, const DeltaBase& base,
                          std::size_t n) {
    const unsigned width = hint.width, log2 = static_cast<unsigned>(std::countr_zero(width));
    PreparedBase out{data(base.base), nullptr};
    if (model.cast != 0) {
        std::uint8_t* own = array(kValues, n * width);
        cast_floats(model.cast, out.values, n, hint.detail, own);
        out.values = own;
    } else if (hint.big_endian && width > 1) {
        std::uint8_t* own = array(kValues, n * width);
        for (std::size_t i = 0; i < n * width; i += width) {
            std::reverse_copy(out.values + i, out.values + i + width, own + i);
        }
        out.values = own;
    }
    if (model.scale) {
        std::uint8_t* own = array(kPredicted, n * width);
        k.scale_f32(out.values, n, *model.scale, own);
        out.values = own;
    }
    if (model.adam) {
        std::uint8_t* own = array(kPredicted, n * width);
        k.adam(*model.adam, out.values, data(base.first), data(base.second), n, own);
        out.values = own;
    }
    std::uint8_t* keys = array(kKeys, n);
    k.keys[log2](out.values, n, is_float(hint), keys);
    out.keys = keys;
    if (!model.step) return out;
    const LastStep& step = *model.step;
    std::uint8_t* fine = array(kLengths, n);
    if (step.by == LastStep::By::kMantissa) {
        k.mantissas[log2](out.values, n, is_float(hint), fine);
    } else {
        std::uint8_t* predicted = array(kExpected, n * width);
        k.predict[log2](out.values, data(base.before), n, is_float(hint), step.again, predicted, fine);
        if (step.by == LastStep::By::kStepsAndMantissa) {
            std::copy(fine, fine + n, keys);
            k.mantissas[log2](out.values, n, is_float(hint), fine);
        }
        out.values = predicted;
    }
    std::uint8_t groups[256];
    for (unsigned key = 0, group = 0; key < 256; ++key) {
        while (group < step.bounds.size() && step.bounds[group] <= key) ++group;
        groups[key] = static_cast<std::uint8_t>(group * LastStep::kFine);
    }
    k.remap(keys, n, groups, keys);
    k.either(fine, n, keys);
    return out;
}

}  // namespace coral::codec
