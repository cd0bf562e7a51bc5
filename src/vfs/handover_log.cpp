// SPDX-License-Identifier: Apache-2.0
// The log: {u32 length of what follows, u8 kind, u64 id, body, u64 XXH3 of kind, id and body}.
#include <algorithm>

#include "coral/base/hash.hpp"
#include "coral/base/log.hpp"
#include "vfs/handover_header.hpp"

namespace coral::vfs {
namespace {

enum Kind : std::uint8_t { kNode = 1, kNodeGone, kFile, kFileClosed, kDirectory, kShown, kDirectoryClosed };

bool tells_of_the_end(std::uint8_t kind) {
    return kind == kNodeGone || kind == kFileClosed || kind == kDirectoryClosed;
}

constexpr std::uint64_t kSmallest = 1u << 20;  // a log that is not worth writing anew
constexpr std::size_t kHead = 4, kSum = 8, kLeast = 1 + 8 + kSum;

void put_text(ByteWriter& out, std::string_view text) {
    out.u32(static_cast<std::uint32_t>(text.size())).text(text);
}
std::string get_text(ByteReader& in) {
    return std::string(as_text(in.take(in.u32())));
}

Buffer encode(const SavedNode& node) {
    Buffer body;
    ByteWriter out(body);
    out.u8(node.kind).u8(node.area).u64(node.parent).i64(node.time_ns).id(node.commit);
    put_text(out, node.key);
    put_text(out, node.text);
    put_text(out, node.space);
    const repo::TreeEntry& e = node.entry;
    out.u8(static_cast<std::uint8_t>(e.type)).u16(e.mode).u64(e.size).i64(e.mtime_ns).id(e.content).id(e.xattrs);
    put_text(out, e.name);
    put_text(out, e.link);
    return body;
}

SavedNode decode_node(NodeId id, ByteReader& in) {
    SavedNode node;
    node.id = id;
    node.kind = in.u8();
    node.area = in.u8();
    node.parent = in.u64();
    node.time_ns = in.i64();
    node.commit = in.id<CommitId>();
    node.key = get_text(in);
    node.text = get_text(in);
    node.space = get_text(in);
    repo::TreeEntry& e = node.entry;
    e.type = static_cast<repo::EntryType>(in.u8());
    e.mode = in.u16();
    e.size = in.u64();
    e.mtime_ns = in.i64();
    e.content = in.id<AnyId>();
    e.xattrs = in.id<SegmentId>();
    e.name = get_text(in);
    e.link = get_text(in);
    return node;
}

SavedFile decode_file(HandleId id, ByteReader& in) {
    SavedFile file;
    file.id = id;
    file.node = in.u64();
    file.unique = in.u64();
    file.flags = static_cast<int>(in.u32());
    file.mode = static_cast<IoMode>(in.u8());
    file.backing = in.u32();
    file.released = in.u8() != 0;
    return file;
}

void apply_shown(SavedDirectory& dir, ByteReader& in) {
    std::uint64_t first = in.u64();
    std::uint32_t count = in.u32();
    dir.shown.resize(static_cast<std::size_t>(std::min<std::uint64_t>(first, dir.shown.size())));
    for (std::uint32_t i = 0; i < count && in.ok(); ++i) dir.shown.push_back(get_text(in));
}

void apply(Saved& saved, std::uint8_t kind, std::uint64_t id, ByteReader& in) {
    switch (kind) {
        case kNode:
            saved.nodes[id] = decode_node(id, in);
            break;
        case kNodeGone:
            saved.nodes.erase(id);
            break;
        case kFile:
            saved.files[id] = decode_file(id, in);
            break;
        case kFileClosed:
            saved.files.erase(id);
            break;
        case kDirectory: {
            std::uint64_t node = in.u64();
            saved.directories[id] = SavedDirectory{node, in.u64(), {}};
            break;
        }
        case kShown:
            if (auto at = saved.directories.find(id); at != saved.directories.end()) apply_shown(at->second, in);
            break;
        case kDirectoryClosed:
            saved.directories.erase(id);
            break;
        default:
            break;
    }
}

struct Record {
    std::uint8_t kind = 0;
    std::uint64_t id = 0;
    Bytes whole, body;
};

// The record at `at`; nothing where the log ends, or was cut.
std::optional<Record> record_at(Bytes log, std::uint64_t at) {
    if (at > log.size() || log.size() - at < kHead + kLeast) return std::nullopt;
    std::uint32_t length = load_le<std::uint32_t>(log.data() + at);
    if (length < kLeast || length > log.size() - at - kHead) return std::nullopt;
    Record record;
    record.whole = log.subspan(static_cast<std::size_t>(at), kHead + length);
    Bytes summed = record.whole.subspan(kHead, length - kSum);
    if (load_le<std::uint64_t>(record.whole.data() + kHead + length - kSum) != xxh3_64(summed)) return std::nullopt;
    record.kind = static_cast<std::uint8_t>(summed[0]);
    record.id = load_le<std::uint64_t>(summed.data() + 1);
    record.body = summed.subspan(9);
    return record;
}

Result<Buffer> read_whole(File& file) {
    CORAL_TRY(FileStat stat, file.stat());
    Buffer log(static_cast<std::size_t>(stat.size));
    CORAL_TRY(std::size_t got, file.read_at(0, log));
    log.resize(got);
    return log;
}

}  // namespace

std::unordered_set<std::uint64_t>& Handover::live_of(std::uint8_t kind) {
    if (kind <= kNodeGone) return nodes_;
    return kind <= kFileClosed ? open_files_ : open_directories_;
}

Result<Saved> Handover::load() {
    std::lock_guard lock(mutex_);
    if (header_->log_failed)
        return make_error(Errc::kIo, "the process before had not enough memory to leave its state");
    CORAL_TRY(Buffer log, read_whole(*files_[header_->log]));
    Saved saved;
    while (auto record = record_at(log, end_)) {
        ByteReader in(record->body);
        apply(saved, record->kind, record->id, in);
        if (!in.ok()) return make_error(Errc::kCorrupt, "what the process before has left cannot be read");
        end_ += record->whole.size();
    }
    for (const auto& [id, node] : saved.nodes) nodes_.insert(id);
    for (const auto& [id, file] : saved.files) open_files_.insert(id);
    for (const auto& [id, dir] : saved.directories) open_directories_.insert(id);
    compact_at_ = std::max(kSmallest, 2 * end_);
    return saved;
}

// A log that cannot be written makes the next process impossible, not this one.
void Handover::append(std::uint8_t kind, std::uint64_t id, const Buffer& body) {
    Buffer record;
    record.reserve(kHead + kLeast + body.size());
    ByteWriter out(record);
    out.u32(static_cast<std::uint32_t>(kLeast + body.size())).u8(kind).u64(id).raw(body);
    out.u64(xxh3_64(Bytes(record).subspan(kHead)));
    std::lock_guard lock(mutex_);
    if (tells_of_the_end(kind))
        live_of(kind).erase(id);
    else if (kind != kShown)
        live_of(kind).insert(id);
    if (Status done = files_[header_->log]->write_at(end_, record); !done) {
        if (!header_->log_failed.exchange(true)) log_error("handover: {}", done.error().message);
        return;
    }
    end_ += record.size();
    if (compact_at_ == 0) compact_at_ = kSmallest;
    if (end_ > compact_at_) compact();
}

void Handover::compact() {
    std::uint32_t from = header_->log, to = 3 - from;
    auto write = [&]() -> Result<std::uint64_t> {
        CORAL_TRY(Buffer log, read_whole(*files_[from]));
        Buffer kept;
        std::uint64_t at = 0;
        while (auto record = record_at(log, at)) {
            at += record->whole.size();
            if (!tells_of_the_end(record->kind) && live_of(record->kind).contains(record->id))
                kept.insert(kept.end(), record->whole.begin(), record->whole.end());
        }
        CORAL_CHECK(files_[to]->truncate(0));
        CORAL_CHECK(files_[to]->write_at(0, kept));
        return kept.size();
    };
    auto size = write();
    if (!size) {
        log_warn("handover: {}", size.error().message);
        compact_at_ *= 2;
        return;
    }
    header_->log = to;
    (void)files_[from]->truncate(0);
    end_ = *size;
    compact_at_ = std::max(kSmallest, 2 * end_);
}

void Handover::node_made(const SavedNode& node) {
    append(kNode, node.id, encode(node));
}
void Handover::node_gone(NodeId node) {
    append(kNodeGone, node, {});
}
void Handover::file_opened(const SavedFile& file) {
    Buffer body;
    ByteWriter(body)
        .u64(file.node)
        .u64(file.unique)
        .u32(static_cast<std::uint32_t>(file.flags))
        .u8(static_cast<std::uint8_t>(file.mode))
        .u32(file.backing)
        .u8(file.released ? 1 : 0);
    append(kFile, file.id, body);
}
void Handover::file_closed(HandleId file) {
    append(kFileClosed, file, {});
}
void Handover::directory_opened(HandleId handle, NodeId node, std::uint64_t unique) {
    Buffer body;
    ByteWriter(body).u64(node).u64(unique);
    append(kDirectory, handle, body);
}
void Handover::directory_shown(HandleId handle, std::uint64_t first, const std::vector<std::string>& names) {
    Buffer body;
    ByteWriter out(body);
    out.u64(first).u32(static_cast<std::uint32_t>(names.size()));
    for (const std::string& name : names) put_text(out, name);
    append(kShown, handle, body);
}
void Handover::directory_closed(HandleId handle) {
    append(kDirectoryClosed, handle, {});
}

}  // namespace coral::vfs
