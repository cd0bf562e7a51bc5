// SPDX-License-Identifier: Apache-2.0
#include "store/pack_writer.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "coral/base/hash.hpp"
#include "coral/base/log.hpp"
#include "store/records.hpp"

namespace coral::store {

PackWriter::~PackWriter() {
    std::lock_guard lock(mutex_);
    leave();
}

// Gives the pack up; closing the file frees its lock.
void PackWriter::leave() {
    if (!file_) return;
    index_.set_own(uuid_, false);
    set_file(nullptr, Uuid{});
}

void PackWriter::set_file(std::shared_ptr<File> file, const Uuid& uuid) {
    std::lock_guard lock(file_mutex_);
    file_ = std::move(file);
    uuid_ = uuid;
}

Result<bool> PackWriter::take_over(const PackState& state) {
    auto opened = os_.open(packs_.path_of(state.uuid), OpenMode::kReadWrite);
    if (!opened) return false;
    CORAL_TRY(bool locked, (*opened)->try_lock(true));
    if (!locked) return false;
    // Only now is its end known: its last appender may have written until a moment ago.
    CORAL_TRY(bool whole, index_.catch_up(state.uuid));
    auto now = index_.pack(state.uuid);
    if (!whole || !now) return false;
    set_file(std::move(*opened), state.uuid);
    end_ = now->scanned_to;
    next_seq_ = now->next_seq;
    index_.set_own(uuid_, true);
    return true;
}

Status PackWriter::create() {
    FileHeader header;
    header.uuid = Uuid::random();
    header.repo = repo_;
    header.created_ns = now_ns();
    header.ref_seq = index_.highest_ref_seq();
    std::string path = packs_.path_of(header.uuid);
    CORAL_TRY(auto file, os_.open(path, OpenMode::kCreateNew));
    auto begin = [&]() -> Status {
        CORAL_TRY(bool locked, file->try_lock(true));
        if (!locked) return make_error(Errc::kBusy, fmt::format("{}: locked by another process", path));
        CORAL_CHECK(file->write_at(0, encode_file_header(header)));
        CORAL_CHECK(file->sync_data());
        return os_.sync_dir(packs_.dir());
    };
    if (Status begun = begin(); !begun) {
        (void)os_.remove(path);  // without a record in it, it is nothing yet
        return begun;
    }
    set_file(std::move(file), header.uuid);
    end_ = kFileHeaderSize;
    next_seq_ = 1;
    index_.add_pack(header, true);
    return {};
}

Status PackWriter::ensure_open() {
    CORAL_CHECK(index_.failure());
    if (file_) return {};
    if (only_new_) return create();
    CORAL_CHECK(index_.refresh());
    std::vector<PackState> candidates = index_.packs();
    std::reverse(candidates.begin(), candidates.end());
    for (const PackState& state : candidates) {
        if (state.phase != PackPhase::kOpen || state.scanned_to >= pack_bytes_) continue;
        CORAL_TRY(bool taken, take_over(state));
        if (taken) return {};
    }
    return create();
}

// One write for a whole record or footer. After a failure nobody knows what is in the file behind end_.
Status PackWriter::write(std::uint64_t offset, Bytes bytes) {
    Status written = file_->write_at(offset, bytes);
    if (written) return {};
    index_.set_closed(uuid_);
    // What follows goes to another pack and must not outlive what came before it.
    if (Status synced = file_->sync_data(); !synced) index_.fail(synced.error());
    leave();
    return written;
}

Result<Appended> PackWriter::append(Kind kind, std::uint16_t flags, const AnyId& id, Bytes specific, Bytes payload) {
    Buffer record = build_record(kind, flags, id, specific, payload);
    CORAL_TRY(RecordHeader header, peek_record(record));
    CORAL_TRY(IndexEntry entry, index_entry(header, specific, 0, 0));
    std::lock_guard lock(mutex_);
    CORAL_CHECK(ensure_open());
    seal_record(record, uuid_, end_, next_seq_);
    CORAL_CHECK(write(end_, record));
    entry.offset = end_;
    std::uint64_t header_sum = load_le<std::uint64_t>(record.data() + header.header_length - 8);
    std::uint64_t ref_seq = kind == Kind::kRef && specific.size() == 8 ? load_le<std::uint64_t>(specific.data()) : 0;
    index_.add_record(uuid_, entry, next_seq_, header_sum, ref_seq);
    Appended appended{uuid_, end_, record.size()};
    end_ += record.size();
    ++next_seq_;
    auto state = index_.pack(uuid_);
    if (end_ >= pack_bytes_ || (state && state->index_bytes + 4096 > kMaxIndexPayload)) {
        // The record is stored; a pack that cannot be sealed now stays a whole, open pack.
        if (Status sealed = seal_locked(); !sealed) log_warn("pack is not sealed: {}", sealed.error().message);
    }
    return appended;
}

Result<bool> PackWriter::sync_own(const Uuid& pack) {
    std::shared_ptr<File> file;
    {
        std::lock_guard lock(file_mutex_);
        if (!file_ || uuid_ != pack) return false;
        file = file_;
    }
    CORAL_CHECK(file->sync_data());
    return true;
}

Status PackWriter::seal() {
    std::lock_guard lock(mutex_);
    if (!file_) return {};
    return seal_locked();
}

// After a failure nothing more is added to the pack, and the store stops promising (Index::fail).
Status PackWriter::sync_or_close() {
    Status synced = file_->sync_data();
    if (synced) return {};
    index_.fail(synced.error());
    index_.set_closed(uuid_);
    leave();
    return synced;
}

Status PackWriter::seal_locked() {
    CORAL_TRY(auto reader, packs_.get(uuid_));
    std::vector<IndexEntry> entries;
    PackWalker walker(*reader, kFileHeaderSize, end_, 1, false);
    PackWalker::Item item;
    while (true) {
        auto more = walker.next(item);
        if (!more) {
            // Rot in the middle of it. It stays unsealed, so that fsck looks at every byte; nothing more is added to
            // it.
            index_.set_closed(uuid_);
            leave();
            return std::move(more).error();
        }
        if (!*more) break;
        auto entry = index_entry(item.header, item.specific, item.offset, item.payload_sum);
        if (entry) entries.push_back(std::move(*entry));
    }
    // A footer vouches for every record before it, INDEX too: it must not reach the disk before they do. And an INDEX
    // ends a pack, so the records before it go first as well.
    CORAL_CHECK(sync_or_close());
    Footer footer;
    footer.index_offset = end_;
    footer.count = entries.size();
    Buffer payload = encode_index(entries);
    footer.index_sha = Sha256::of(payload);
    Buffer record = build_record(Kind::kIndex, 0, AnyId{}, {}, payload);
    seal_record(record, uuid_, end_, next_seq_);
    CORAL_CHECK(write(end_, record));
    CORAL_CHECK(sync_or_close());
    std::uint64_t end = end_ + record.size();
    CORAL_CHECK(write(end, encode_footer(footer, uuid_, end)));
    CORAL_CHECK(sync_or_close());
    (void)file_->change_mode(0400);  // for people; the footer is what counts
    index_.set_sealed(uuid_, end + kFooterSize);
    set_file(nullptr, Uuid{});
    return {};
}

}  // namespace coral::store
