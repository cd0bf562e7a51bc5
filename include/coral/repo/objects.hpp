// SPDX-License-Identifier: Apache-2.0
// History objects and their canonical encodings (docs/format.md, "Canonical encodings"). Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "coral/base/bytes.hpp"
#include "coral/base/ids.hpp"
#include "coral/base/result.hpp"

namespace coral::repo {

enum class EntryType : std::uint8_t { kFile = 1, kDirectory = 2, kSymlink = 3 };

struct TreeEntry {
    std::string name;  // 1–255 bytes, any but '/' and NUL, not "." or ".."
    EntryType type = EntryType::kFile;
    std::uint16_t mode = 0644;  // permission bits, & 0777
    std::uint64_t size = 0;     // file bytes, link length, 0 for directories
    std::int64_t mtime_ns = 0;  // files; else 0
    AnyId content;              // FILE, TREE, or SHA-256 of the link text
    SegmentId xattrs;           // segment with the encoded pairs; zero: none
    std::string link;           // symlinks only
    bool operator==(const TreeEntry&) const = default;
    // Equal but for mtime: then the parent's mtime is kept and nothing has changed.
    bool same_content(const TreeEntry& other) const {
        return type == other.type && content == other.content && mode == other.mode && xattrs == other.xattrs;
    }
};

struct Tree {
    std::vector<TreeEntry> entries;  // sorted bytewise by name, unique
    const TreeEntry* find(std::string_view name) const;
    bool operator==(const Tree&) const = default;
};

struct Person {
    std::string name, mail;
    std::int64_t time_ns = 0;
    std::int16_t zone_minutes = 0;  // offset from UTC
    bool operator==(const Person&) const = default;
};

struct Commit {
    TreeId tree;
    std::vector<CommitId> parents;
    Person author, committer;
    std::vector<std::pair<std::string, std::string>> meta;  // sorted key=value, metrics
    std::string signature;
    std::string message;
    bool operator==(const Commit&) const = default;
};

struct Tag {  // an annotated tag; a light one is only a ref
    CommitId target;
    std::string name;
    Person tagger;
    std::string message;
    std::string signature;
    bool operator==(const Tag&) const = default;
};

// The name rule of every entry: kernel, command line, import, tree decoding.
bool valid_name(std::string_view name);

// What the canonical encodings can hold; kInvalid says what is wrong. The encoders throw std::invalid_argument on
// anything else: whoever takes values from outside (a user, another repository) checks first. Repository::put_* does.
Status check_tree(const Tree& tree);
Status check_commit(const Commit& commit);
Status check_tag(const Tag& tag);

// Made fit for a Person's name or mail: line ends, control characters and '<' '>' go, bytes that are not UTF-8 become
// '?', blanks around it go.
std::string clean_person_text(std::string_view text);

Buffer encode_tree(const Tree& tree);
Result<Tree> decode_tree(Bytes bytes);  // refuses whatever encode_tree would not write
Buffer encode_commit(const Commit& commit);
Result<Commit> decode_commit(Bytes bytes);
Buffer encode_tag(const Tag& tag);
Result<Tag> decode_tag(Bytes bytes);

using Xattrs = std::map<std::string, std::string>;  // sorted by name
// Names are 1–255 bytes without NUL and not `user.coral.*`; values at most 64 KiB; all together at most one segment.
Status check_xattrs(const Xattrs& xattrs);
Buffer encode_xattrs(const Xattrs& xattrs);
Result<Xattrs> decode_xattrs(Bytes bytes);

}  // namespace coral::repo
