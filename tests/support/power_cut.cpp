// SPDX-License-Identifier: Apache-2.0
#include "support/power_cut.hpp"

#include <algorithm>
#include <stdexcept>

namespace coral::test {
namespace {

constexpr std::uint64_t kSector = 512;
constexpr int kMaxDepth = 32;

void must(const Status& status) {
    if (!status) throw std::runtime_error("replay: " + status.error().message);
}

void overwrite(Buffer& content, std::uint64_t offset, Bytes data) {
    content.resize(std::max<std::size_t>(content.size(), offset + data.size()));
    std::copy(data.begin(), data.end(), content.begin() + static_cast<std::ptrdiff_t>(offset));
}

}  // namespace

std::string_view cut_name(Cut cut) {
    static constexpr std::string_view kNames[] = {"kill", "all", "synced", "names", "random"};
    return kNames[static_cast<int>(cut)];
}

Disk::Disk(const std::vector<Operation>& log) : log_(log) {
    nodes_[kRootNode].directory = true;
}

void Disk::advance(std::size_t position) {
    if (position < position_ || position > log_.size()) throw std::logic_error("a disk does not go back");
    while (position_ < position) apply(position_++);
}

void Disk::apply(std::size_t index) {
    const Operation& op = log_[index];
    switch (op.change) {
        case Change::kCreate:
        case Change::kMakeDirectory:
            nodes_[op.node].directory = op.change == Change::kMakeDirectory;
            nodes_[op.directory].names.push_back({{{op.name, op.node}}});
            break;
        case Change::kRemove:
            nodes_[op.directory].names.push_back({{{op.name, kNoNode}}});
            break;
        case Change::kRename:
            if (op.directory == op.new_directory) {
                nodes_[op.directory].names.push_back({{{op.name, kNoNode}, {op.new_name, op.node}}});
            } else {
                nodes_[op.new_directory].names.push_back({{{op.new_name, op.node}}});
                nodes_[op.directory].names.push_back({{{op.name, kNoNode}}});
            }
            break;
        case Change::kWrite:
        case Change::kTruncate:
            nodes_[op.node].data.push_back({index});
            break;
        case Change::kSync:
        case Change::kSyncFailed:
            for (DataChange& change : nodes_[op.node].data) {
                if (change.state != Durability::kPending) continue;
                change.state = op.change == Change::kSync ? Durability::kDurable : Durability::kLost;
            }
            break;
        case Change::kSyncDirectory:
            nodes_[op.node].durable_names = nodes_[op.node].names.size();
            break;
        case Change::kChangeMode:  // replayed files are the tester's own: permissions do not bind root anyway
        case Change::kMark:
            break;
    }
}

void Disk::materialise(const std::string& path, Cut cut, std::uint64_t seed) const {
    Choice choice{cut, std::mt19937_64(seed * 1'000'003 + position_)};
    write_directory(path, nodes_.at(kRootNode), choice, 0);
}

void Disk::write_directory(const std::string& path, const Node& node, const Choice& choice, int depth) const {
    if (depth > kMaxDepth) throw std::runtime_error("replay: directories nest too deep");
    std::size_t kept = node.names.size();
    if (choice.cut == Cut::kSynced) kept = node.durable_names;
    if (choice.cut == Cut::kRandom) {
        kept = node.durable_names + choice.random() % (node.names.size() - node.durable_names + 1);
    }
    Names names;
    for (std::size_t i = 0; i < kept; ++i) {
        for (const auto& [name, id] : node.names[i].edits) {
            if (id == kNoNode)
                names.erase(name);
            else
                names[name] = id;
        }
    }
    for (const auto& [name, id] : names) {
        const Node& child = nodes_.at(id);
        std::string child_path = path_join(path, name);
        if (!child.directory) {
            write_file(child_path, child, choice);
            continue;
        }
        must(real_os().make_dir(child_path));
        write_directory(child_path, child, choice, depth + 1);
    }
}

void Disk::write_file(const std::string& path, const Node& node, const Choice& choice) const {
    Buffer content;
    bool everything = choice.cut == Cut::kKill || choice.cut == Cut::kAll;
    for (const DataChange& change : node.data) {
        const Operation& op = log_[change.index];
        bool durable = everything || change.state == Durability::kDurable;
        if (!durable && (choice.cut != Cut::kRandom || choice.unlucky())) continue;
        if (op.change == Change::kTruncate)
            content.resize(op.offset);
        else if (durable || choice.unlucky())
            overwrite(content, op.offset, op.data);
        else
            keep_sectors(content, op, choice);
    }
    auto file = real_os().open(path, OpenMode::kCreateNew);
    if (!file) throw std::runtime_error("replay: " + file.error().message);
    if (!content.empty()) must((*file)->write_at(0, content));
}

// Of a torn write some sectors arrived, in any order; a hole before the last of them reads as zeros.
void Disk::keep_sectors(Buffer& content, const Operation& write, const Choice& choice) const {
    Bytes data = write.data;
    for (std::uint64_t done = 0; done < data.size();) {
        std::uint64_t at = write.offset + done;
        std::uint64_t part = std::min<std::uint64_t>(data.size() - done, kSector - at % kSector);
        if (choice.unlucky()) overwrite(content, at, data.subspan(done, part));
        done += part;
    }
}

}  // namespace coral::test
