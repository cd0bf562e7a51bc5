// SPDX-License-Identifier: Apache-2.0
// .npz: a zip whose members are .npy files, one for each array. numpy.savez stores them; what numpy.savez_compressed
// deflates stays bytes. Spec: numpy.org/doc/stable/reference/generated/numpy.lib.format.html.
#include <string>

#include "formats/layout_builder.hpp"
#include "formats/npy.hpp"
#include "formats/utf8.hpp"
#include "formats/zip_directory.hpp"

namespace coral::formats {

namespace {

constexpr std::uint16_t kVersion = 1;
constexpr std::string_view kSuffix = ".npy";

// As numpy.load calls the array.
std::string array_name(const ZipMember& member, std::size_t index, LayoutBudget& budget) {
    const std::string_view name = member.name.substr(0, member.name.size() - kSuffix.size());
    if (!name.empty() && is_utf8(name) && budget.take_name(name.size())) return std::string(name);
    return "array:" + std::to_string(index);
}

}  // namespace

Result<std::optional<Layout>> parse_npz(const ByteSource& source) {
    CORAL_TRY(std::optional<ZipDirectory> directory, ZipDirectory::read(source));
    // Other zip files may have an .npy among their members; whatever they are, they are no archive of arrays.
    if (!directory || !directory->first_name().ends_with(kSuffix)) return std::optional<Layout>{};
    Layout layout{Parser::kNpz, kVersion, {}};
    LayoutBudget budget;
    for (std::size_t i = 0; i < directory->members().size(); ++i) {
        const ZipMember& member = directory->members()[i];
        if (!member.stored || !member.name.ends_with(kSuffix)) continue;
        CORAL_TRY(std::optional<Tensor> tensor, read_npy(source, member.offset, member.size));
        // An array of objects, say, is a pickle.
        if (!tensor || !budget.take_shape(tensor->shape.size()) || !budget.take_tensor()) continue;
        tensor->name = array_name(member, i, budget);
        layout.tensors.push_back(std::move(*tensor));
    }
    if (layout.tensors.empty()) return std::optional<Layout>{};
    return finish_layout(std::move(layout), source.size());
}

}  // namespace coral::formats
