// SPDX-License-Identifier: Apache-2.0
#include "codec/adam_fit.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

namespace coral::codec {
namespace {

constexpr std::size_t kMostElements = 65'536;
constexpr std::size_t kFewestElements = 64;
// Below these, values are rounded too coarsely, or divide by next to nothing.
constexpr double kLeastWeight = 1e-6, kLeastVariance = 1e-30;

struct Element {
    double now, base, first, second;
};

double value_at(Bytes bytes, std::size_t i) {
    float v;
    std::memcpy(&v, bytes.data() + 4 * i, 4);
    return v;
}

std::vector<Element> elements_of(Formula formula, std::span<const AdamSample> samples) {
    std::size_t all = 0;
    for (const AdamSample& sample : samples) all += sample.now.size() / 4;
    const std::size_t step = std::max<std::size_t>(1, all / kMostElements);
    std::vector<Element> out;
    for (const AdamSample& sample : samples) {
        for (std::size_t i = 0; i < sample.now.size() / 4; i += step) {
            Element e{value_at(sample.now, i), value_at(sample.base, i), value_at(sample.first, i),
                      value_at(sample.second, i)};
            if (!std::isfinite(e.now) || !std::isfinite(e.first) || !std::isfinite(e.second)) continue;
            bool weights = formula == Formula::kAdamWeights;
            bool usable = weights ? std::abs(e.base) > kLeastWeight && e.second > kLeastVariance
                                  : e.base > kLeastVariance && e.now > 0;
            if (usable && std::isfinite(e.base)) out.push_back(e);
        }
    }
    return out;
}

// Sums for least squares in N unknowns.
template <std::size_t N>
class Squares {
  public:
    void add(std::array<double, N> row, double wanted, double weight) {
        for (double& v : row) v *= weight;
        wanted *= weight;
        for (std::size_t i = 0; i < N; ++i) {
            for (std::size_t j = 0; j < N; ++j) sums_[i][j] += row[i] * row[j];
            sums_[i][N] += row[i] * wanted;
        }
    }

    // By elimination, with columns scaled alike and the largest pivots first.
    std::optional<std::array<double, N>> solve() {
        std::array<double, N> scale;
        for (std::size_t i = 0; i < N; ++i) {
            if (!(sums_[i][i] > 0) || !std::isfinite(sums_[i][i])) return std::nullopt;
            scale[i] = 1 / std::sqrt(sums_[i][i]);
        }
        for (std::size_t i = 0; i < N; ++i) {
            for (std::size_t j = 0; j < N; ++j) sums_[i][j] *= scale[i] * scale[j];
            sums_[i][N] *= scale[i];
        }
        for (std::size_t c = 0; c < N; ++c) {
            std::size_t pivot = c;
            for (std::size_t r = c + 1; r < N; ++r) {
                if (std::abs(sums_[r][c]) > std::abs(sums_[pivot][c])) pivot = r;
            }
            if (std::abs(sums_[pivot][c]) < 1e-13) return std::nullopt;
            std::swap(sums_[c], sums_[pivot]);
            for (std::size_t r = 0; r < N; ++r) {
                if (r == c) continue;
                const double times = sums_[r][c] / sums_[c][c];
                for (std::size_t j = c; j <= N; ++j) sums_[r][j] -= times * sums_[c][j];
            }
        }
        std::array<double, N> out;
        for (std::size_t i = 0; i < N; ++i) out[i] = sums_[i][N] / sums_[i][i] * scale[i];
        return out;
    }

  private:
    std::array<std::array<double, N + 1>, N> sums_{};
};

std::optional<AdamStep> step_of(Formula formula, double a, double b, double c) {
    AdamStep step{formula, static_cast<float>(a), static_cast<float>(b), static_cast<float>(c)};
    for (float f : {step.a, step.b, step.c}) {
        if (f != 0 && !std::isnormal(f)) return std::nullopt;
    }
    return step;
}

// now = a base - b first / (sqrt(second) + c), with c from none on by steps of Newton's.
std::optional<AdamStep> fit_weights(const std::vector<Element>& elements) {
    double a = 1, b = 0, c = 0;
    {
        Squares<2> linear;
        for (const Element& e : elements) {
            linear.add({e.base, -e.first / std::sqrt(e.second)}, e.now, 1 / std::abs(e.base));
        }
        auto found = linear.solve();
        if (!found) return std::nullopt;
        a = (*found)[0], b = (*found)[1];
    }
    auto best = step_of(Formula::kAdamWeights, a, b, c);
    for (int round = 0; round < 4; ++round) {
        Squares<3> better;
        for (const Element& e : elements) {
            const double root = std::sqrt(e.second) + c, share = e.first / root;
            better.add({e.base, -share, b * share / root}, e.now - (a * e.base - b * share), 1 / std::abs(e.base));
        }
        auto found = better.solve();
        if (!found) break;
        a += (*found)[0], b += (*found)[1];
        c = std::clamp(c + (*found)[2], 0.0, 1e-3);
        auto step = step_of(Formula::kAdamWeights, a, b, c);
        if (!step) break;
        best = step;
    }
    return best;
}

// now = a base + b (first - c second)^2, which is linear in a, b, -2 b c and b c^2.
std::optional<AdamStep> fit_variance(const std::vector<Element>& elements) {
    Squares<4> squares;
    for (const Element& e : elements) {
        squares.add({e.base, e.first * e.first, e.first * e.second, e.second * e.second}, e.now, 1 / e.base);
    }
    auto found = squares.solve();
    if (!found || (*found)[1] == 0) return std::nullopt;
    return step_of(Formula::kAdamVariance, (*found)[0], (*found)[1], -(*found)[2] / (2 * (*found)[1]));
}

}  // namespace

std::optional<AdamStep> fit_adam(Formula formula, std::span<const AdamSample> samples) {
    const std::vector<Element> elements = elements_of(formula, samples);
    if (elements.size() < kFewestElements) return std::nullopt;
    return formula == Formula::kAdamWeights ? fit_weights(elements) : fit_variance(elements);
}

}  // namespace coral::codec
