// SPDX-License-Identifier: Apache-2.0
#include "repo/adam_parts.hpp"

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "coral/formats/layout.hpp"

namespace coral::repo {
namespace {

constexpr std::string_view kFirst = "exp_avg", kSecond = "exp_avg_sq";

// Where `part` is a component of a dotted name.
std::optional<std::size_t> component(std::string_view name, std::string_view part) {
    for (std::size_t at = name.find(part); at != std::string_view::npos; at = name.find(part, at + 1)) {
        const std::size_t end = at + part.size();
        if ((at == 0 || name[at - 1] == '.') && (end == name.size() || name[end] == '.')) return at;
    }
    return std::nullopt;
}

bool is_f32(const store::TensorEntry& tensor) {
    return tensor.dtype == static_cast<std::uint8_t>(formats::Dtype::kF32) && !tensor.big_endian;
}

}  // namespace

std::vector<AdamPart> adam_parts(const std::vector<store::TensorEntry>& tensors) {
    using Shape = std::vector<std::uint64_t>;
    std::vector<AdamPart> parts(tensors.size());
    std::unordered_map<std::string, std::size_t> seconds;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        if (is_f32(tensors[i]) && component(tensors[i].name, kSecond)) seconds.emplace(tensors[i].name, i);
    }
    if (seconds.empty()) return parts;
    struct Pair {
        std::size_t first, second;
    };
    std::map<Shape, std::vector<Pair>> pairs;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        auto at = component(tensors[i].name, kFirst);
        if (!at || !is_f32(tensors[i])) continue;
        std::string other = tensors[i].name;
        auto second = seconds.find(other.replace(*at, kFirst.size(), kSecond));
        if (second == seconds.end() || tensors[second->second].shape != tensors[i].shape) continue;
        parts[second->second] = {codec::Formula::kAdamVariance, i, 0};
        pairs[tensors[i].shape].push_back({i, second->second});
    }
    std::map<Shape, std::size_t> met;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const std::string& name = tensors[i].name;
        if (!is_f32(tensors[i]) || component(name, kFirst) || component(name, kSecond)) continue;
        auto of_shape = pairs.find(tensors[i].shape);
        if (of_shape == pairs.end()) continue;
        const std::size_t nth = met[tensors[i].shape]++;
        if (nth >= of_shape->second.size()) continue;
        const Pair& pair = of_shape->second[nth];
        parts[i] = {codec::Formula::kAdamWeights, pair.first, pair.second};
    }
    return parts;
}

}  // namespace coral::repo
