// SPDX-License-Identifier: Apache-2.0
// torch.save before 1.6, and with _use_new_zipfile_serialization=False since: five pickles (a magic number, the version
// of the protocol, facts about the machine, the object, the keys of its storages), then for each key in the order of
// that list the number of elements and the elements, always little-endian. The tar files of torch 0.1 stay bytes.
// Spec: torch/serialization.py (_legacy_save, _legacy_load), torch/csrc/serialization.cpp (THPStorage_writeFileRaw) of
// github.com/pytorch/pytorch.
#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "formats/layout_builder.hpp"
#include "formats/limits.hpp"
#include "formats/pickle.hpp"
#include "formats/torch_storages.hpp"

namespace coral::formats {

namespace {

constexpr std::uint16_t kVersion = 1;
constexpr std::int64_t kProtocol = 1001;
// LONG1 of ten bytes: 0x1950a86a20f9469cfc6c; then STOP.
constexpr std::string_view kMagic = "\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
constexpr std::byte kProto{0x80};
constexpr std::size_t kProtoSize = 2, kFrameSize = 9;
// Keys are addresses in decimal; long ones would only make the search slow.
constexpr std::size_t kMaxKeyLength = 64;

// PROTO, since protocol 4 a FRAME, the magic number.
bool read_magic(SourceReader& reader) {
    std::array<char, kMagic.size()> magic;
    if (!reader.skip(kProtoSize)) return false;
    if (reader.peek() == 0x95 && !reader.skip(kFrameSize)) return false;
    return reader.read(std::as_writable_bytes(std::span(magic))) &&
           std::string_view(magic.data(), magic.size()) == kMagic;
}

bool read_prologue(SourceReader& reader) {
    if (!read_magic(reader)) return false;
    TorchPickle protocol, machine;
    // The machine's byte order and its sizes of C types change nothing about what follows.
    return protocol.read(reader) && protocol.root().tag() == Tag::kInt && protocol.root().as_int() == kProtocol &&
           machine.read(reader) && machine.root().tag() == Tag::kDict;
}

// The storages that follow the pickles.
class StorageList {
  public:
    StorageList(SourceReader& reader, std::uint64_t file_size, const TorchPickle& object)
        : reader_(reader), file_size_(file_size), object_(object) {
        for (const PickledStorage& storage : object.storages()) {
            if (key(storage).size() <= kMaxKeyLength) known_.push_back(&storage);
        }
        std::stable_sort(known_.begin(), known_.end(), [this](auto a, auto b) { return key(*a) < key(*b); });
    }

    // Sorted by key. Nothing when one of them is not as the object said, or the file ends.
    std::optional<std::vector<StorageBytes>> read(const TorchPickle& keys) {
        if (keys.root().tag() != Tag::kList) return std::nullopt;
        std::vector<StorageBytes> out;
        Cursor cursor = keys.heap().begin(keys.heap().node(keys.root()));
        for (Value item; keys.heap().next(cursor, item);) {
            StorageBytes storage;
            if (item.tag() != Tag::kText || out.size() == kMaxTensors || !read_one(keys.heap().text(item), storage))
                return std::nullopt;
            out.push_back(storage);
        }
        std::sort(out.begin(), out.end(), by_key);
        const bool twice = std::adjacent_find(out.begin(), out.end(), same_key) != out.end();
        if (twice) return std::nullopt;
        return out;
    }

  private:
    std::string_view key(const PickledStorage& storage) const { return object_.key(storage); }
    static bool by_key(const StorageBytes& a, const StorageBytes& b) { return a.key < b.key; }
    static bool same_key(const StorageBytes& a, const StorageBytes& b) { return a.key == b.key; }

    bool read_one(std::string_view wanted, StorageBytes& out) {
        auto it = std::lower_bound(known_.begin(), known_.end(), wanted,
                                   [this](auto storage, std::string_view k) { return key(*storage) < k; });
        if (it == known_.end() || key(**it) != wanted || (*it)->element_bytes == 0) return false;
        std::array<std::byte, 8> count;
        if (!reader_.read(count) || load_le<std::uint64_t>(count.data()) != (*it)->count) return false;
        out.key = key(**it);
        out.offset = file_size_ - reader_.left();
        return checked_mul<std::uint64_t>((*it)->count, (*it)->element_bytes, out.length) && reader_.skip(out.length);
    }

    SourceReader& reader_;
    std::uint64_t file_size_;
    const TorchPickle& object_;
    std::vector<const PickledStorage*> known_;  // sorted by key; the first of a key counts
};

std::optional<Layout> read_file(SourceReader& reader, std::uint64_t file_size) {
    if (!read_prologue(reader)) return std::nullopt;
    TorchPickle object;
    if (!object.read(reader)) return std::nullopt;
    std::optional<std::vector<StorageBytes>> bytes;
    {
        TorchPickle keys;
        if (!keys.read(reader)) return std::nullopt;
        bytes = StorageList(reader, file_size, object).read(keys);
    }
    if (!bytes) return std::nullopt;
    // What follows, if anything, is another torch.save into the same file.
    TorchStorages storages(std::move(*bytes), "", TorchStorages::Unnamed::kByIndex);
    LayoutBudget budget;
    Layout layout{Parser::kTorchLegacy, kVersion, {}};
    storages.describe(object, budget);
    storages.add_tensors(false, budget, layout);
    return layout;
}

}  // namespace

Result<std::optional<Layout>> parse_torch_legacy(const ByteSource& source) {
    std::array<std::byte, 1> start;
    if (source.size() < start.size()) return std::optional<Layout>{};
    CORAL_CHECK(source.read_at(0, start));
    if (start[0] != kProto) return std::optional<Layout>{};
    SourceReader reader(source, 0, source.size());
    std::optional<Layout> layout = read_file(reader, source.size());
    if (reader.error()) return *reader.error();
    if (!layout) return std::optional<Layout>{};
    return finish_layout(std::move(*layout), source.size());
}

}  // namespace coral::formats
