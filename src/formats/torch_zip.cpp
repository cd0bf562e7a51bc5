// SPDX-License-Identifier: Apache-2.0
// torch.save since 1.6, and TorchScript: a zip whose members all begin with the archive's name; data.pkl describes the
// tensors, data/<key> holds the bytes of one storage each. TorchScript adds constants.pkl and constants/<key>.
// Spec: caffe2/serialize/inline_container.h, torch/serialization.py (_save, _load),
// torch/csrc/jit/serialization/import.cpp of github.com/pytorch/pytorch.
#include <array>
#include <string>
#include <utility>

#include "formats/layout_builder.hpp"
#include "formats/limits.hpp"
#include "formats/pickle.hpp"
#include "formats/torch_storages.hpp"
#include "formats/zip_directory.hpp"

namespace coral::formats {

namespace {

constexpr std::uint16_t kVersion = 1;

// One pickle with its storages: data.pkl with data/, constants.pkl with constants/.
Status add_group(const ByteSource& source, const ZipDirectory& directory, const std::string& folder,
                 const std::string& name_prefix, const ZipMember* pickle_member, bool big_endian, LayoutBudget& budget,
                 Layout& layout) {
    auto [first, last] = directory.range(folder);
    std::vector<StorageBytes> members;
    for (std::size_t i = first; i < last; ++i) {
        const ZipMember& member = directory.members()[i];
        const std::string_view key = member.name.substr(folder.size());
        // Other zip programs add members for folders.
        const bool is_folder = key.empty() || key.back() == '/';
        if (!is_folder && member.stored) members.push_back({key, member.offset, member.size});
    }
    TorchStorages storages(std::move(members), name_prefix, TorchStorages::Unnamed::kByKey);
    // A pickle that is not there, or cannot be read to its end, leaves storages undescribed; that is no error.
    if (pickle_member && pickle_member->stored) {
        SourceReader reader(source, pickle_member->offset, pickle_member->offset + pickle_member->size);
        TorchPickle pickle;
        pickle.read(reader);
        if (reader.error()) return *reader.error();
        storages.describe(pickle, budget);
    }
    storages.add_tensors(big_endian, budget, layout);
    return {};
}

Result<bool> is_big_endian(const ByteSource& source, const ZipMember* member) {
    constexpr std::string_view kBig = "big";
    std::array<std::byte, kBig.size()> text;
    if (!member || !member->stored || member->size != text.size()) return false;
    CORAL_CHECK(source.read_at(member->offset, text));
    return as_text(text) == kBig;
}

}  // namespace

Result<std::optional<Layout>> parse_torch_zip(const ByteSource& source) {
    CORAL_TRY(std::optional<ZipDirectory> directory, ZipDirectory::read(source));
    if (!directory) return std::optional<Layout>{};
    const std::size_t slash = directory->first_name().find('/');
    if (slash == std::string_view::npos) return std::optional<Layout>{};
    const std::string archive(directory->first_name().substr(0, slash + 1));
    const ZipMember* data_pickle = directory->find(archive + "data.pkl");
    if (!data_pickle) return std::optional<Layout>{};
    CORAL_TRY(bool big_endian, is_big_endian(source, directory->find(archive + "byteorder")));

    Layout layout{Parser::kTorchZip, kVersion, {}};
    LayoutBudget budget;
    CORAL_CHECK(add_group(source, *directory, archive + "data/", "", data_pickle, big_endian, budget, layout));
    const ZipMember* constants_pickle = directory->find(archive + "constants.pkl");
    CORAL_CHECK(add_group(source, *directory, archive + "constants/", "constants.", constants_pickle, big_endian,
                          budget, layout));
    return finish_layout(std::move(layout), source.size());
}

}  // namespace coral::formats
