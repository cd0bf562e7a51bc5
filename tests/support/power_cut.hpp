// SPDX-License-Identifier: Apache-2.0
// What a log of changes leaves on the disk when the machine, or only the process, ends at some point of it.
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "support/recording_os.hpp"

namespace coral::test {

enum class Cut {
    kKill,    // the process died: everything before the point is there
    kAll,     // power cut, but by luck everything had been written
    kSynced,  // nothing but what was synced: data by fdatasync of the file, names by a sync of their directory
    kNames,   // all names, synced data: a rename or a new file overtook the bytes
    kRandom,  // a random part of the unsynced writes, torn at sectors of 512 bytes; of each directory's changes, the
              // first few
};
std::string_view cut_name(Cut cut);

class Disk {
  public:
    explicit Disk(const std::vector<Operation>& log);

    // Takes the operations up to `position` (never back).
    void advance(std::size_t position);
    // Writes what is left after `cut` into the empty directory `path`.
    void materialise(const std::string& path, Cut cut, std::uint64_t seed = 0) const;

  private:
    enum class Durability : std::uint8_t { kPending, kDurable, kLost };
    struct DataChange {
        std::size_t index;  // in log_
        Durability state = Durability::kPending;
    };
    using Names = std::map<std::string, NodeId>;
    struct NameChange {  // applied whole: a rename within a directory never shows half
        std::vector<std::pair<std::string, NodeId>> edits;
    };
    struct Node {
        bool directory = false;
        std::vector<DataChange> data;
        std::vector<NameChange> names;
        std::size_t durable_names = 0;
    };
    struct Choice {
        Cut cut;
        mutable std::mt19937_64 random;
        bool unlucky() const { return random() % 2 != 0; }
    };

    void apply(std::size_t index);
    void write_directory(const std::string& path, const Node& node, const Choice& choice, int depth) const;
    void write_file(const std::string& path, const Node& node, const Choice& choice) const;
    void keep_sectors(Buffer& content, const Operation& write, const Choice& choice) const;

    const std::vector<Operation>& log_;
    std::size_t position_ = 0;
    std::map<NodeId, Node> nodes_;
};

}  // namespace coral::test
