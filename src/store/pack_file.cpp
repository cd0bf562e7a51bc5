// SPDX-License-Identifier: Apache-2.0
#include "store/pack_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "coral/base/hash.hpp"

namespace coral::store {
namespace {

// Most headers (64 chunks and a base) fit, so that one read gets them.
constexpr std::size_t kHeaderGuess = 2048;
constexpr std::size_t kWindow = 1u << 20;

Error corrupt(std::string what) {
    return make_error(Errc::kCorrupt, std::move(what));
}

}  // namespace

Result<std::shared_ptr<PackFile>> PackFile::open(Os& os, const std::string& path) {
    CORAL_TRY(auto file, os.open(path, OpenMode::kRead));
    auto pack = std::shared_ptr<PackFile>(new PackFile(path, std::move(file)));
    std::byte raw[kFileHeaderSize];
    CORAL_CHECK(pack->read(0, raw));
    auto header = decode_file_header(raw);
    if (!header) return pack->at(0, std::move(header).error());
    pack->header_ = *header;
    return pack;
}

Error PackFile::at(std::uint64_t offset, Error error) const {
    return std::move(error).with(fmt::format("{} at {}", path_, offset));
}

Status PackFile::read(std::uint64_t offset, MutableBytes out) {
    CORAL_TRY(std::size_t got, file_->read_at(offset, out));
    if (got != out.size()) return at(offset, corrupt(fmt::format("ends {} bytes too early", out.size() - got)));
    return {};
}

Result<LoadedHeader> PackFile::read_header(std::uint64_t offset) {
    LoadedHeader loaded;
    loaded.bytes.resize(kHeaderGuess);
    CORAL_TRY(std::size_t got, file_->read_at(offset, loaded.bytes));
    loaded.bytes.resize(got);
    if (got < kRecordMinimum) return at(offset, corrupt("no record: the file ends here"));
    auto peeked = peek_record(loaded.bytes);
    if (!peeked) return at(offset, std::move(peeked).error());
    loaded.header = *peeked;
    loaded.bytes.resize(loaded.header.header_length);
    if (loaded.header.header_length > got) CORAL_CHECK(read(offset + got, MutableBytes(loaded.bytes).subspan(got)));
    if (Status sum = check_header_sum(loaded.bytes, uuid(), offset); !sum) return at(offset, std::move(sum).error());
    return loaded;
}

Result<Buffer> PackFile::read_payload(std::uint64_t offset, const RecordHeader& header) {
    Buffer payload(static_cast<std::size_t>(header.payload_length + 8));
    CORAL_CHECK(read(offset + header.header_length, payload));
    auto length = static_cast<std::size_t>(header.payload_length);
    if (load_le<std::uint64_t>(payload.data() + length) !=
        xxh3_64(Bytes(payload).first(length), sum_seed(uuid(), offset))) {
        return at(offset,
                  corrupt(fmt::format("the checksum of the payload of this {} is wrong", kind_name(header.kind))));
    }
    payload.resize(length);
    return payload;
}

Result<std::optional<Footer>> PackFile::read_footer(std::uint64_t size) {
    if (size < kFileHeaderSize + kRecordMinimum + kFooterSize) return std::optional<Footer>();
    std::byte raw[kFooterSize];
    CORAL_CHECK(read(size - kFooterSize, raw));
    auto footer = decode_footer(raw, uuid(), size - kFooterSize);
    if (!footer) return std::optional<Footer>();
    return std::optional<Footer>(*footer);
}

Result<std::vector<IndexEntry>> PackFile::read_index(const Footer& footer, std::uint64_t size) {
    CORAL_TRY(LoadedHeader loaded, read_header(footer.index_offset));
    if (loaded.header.kind != Kind::kIndex || footer.index_offset + loaded.header.total() != size - kFooterSize) {
        return at(footer.index_offset, corrupt("the footer does not point to the INDEX record"));
    }
    CORAL_TRY(Buffer payload, read_payload(footer.index_offset, loaded.header));
    if (Sha256::of(payload) != footer.index_sha) {
        return at(footer.index_offset, corrupt("the footer's SHA-256 of the INDEX record is wrong"));
    }
    auto entries = decode_index(payload, footer.count, footer.index_offset);
    if (!entries) return at(footer.index_offset, std::move(entries).error());
    return entries;
}

PackWalker::PackWalker(PackFile& pack, std::uint64_t begin, std::uint64_t end, std::uint64_t next_seq, bool payloads)
    : pack_(pack), position_(begin), end_(end), next_seq_(next_seq), payloads_(payloads) {}

Result<Bytes> PackWalker::fetch(std::uint64_t offset, std::uint64_t length) {
    if (offset > end_ || length > end_ - offset) return corrupt("record is cut off by the end of the file");
    if (offset < window_begin_ || offset + length > window_begin_ + window_length_) {
        // Without payloads most of the file is passed over: then small windows.
        std::uint64_t want = std::max<std::uint64_t>(length, payloads_ ? kWindow : 16u << 10);
        want = std::min(want, end_ - offset);
        if (window_.size() < want) window_.resize(static_cast<std::size_t>(want));
        window_length_ = 0;
        CORAL_CHECK(pack_.read(offset, MutableBytes(window_).first(static_cast<std::size_t>(want))));
        window_begin_ = offset;
        window_length_ = want;
    }
    return Bytes(window_).subspan(static_cast<std::size_t>(offset - window_begin_), static_cast<std::size_t>(length));
}

Result<RecordHeader> PackWalker::header_at(std::uint64_t offset, Bytes& bytes) {
    CORAL_TRY(Bytes fixed, fetch(offset, kRecordMinimum));
    CORAL_TRY(RecordHeader header, peek_record(fixed));
    CORAL_TRY(bytes, fetch(offset, header.header_length));
    CORAL_CHECK(check_header_sum(bytes, pack_.uuid(), offset));
    if (header.total() > end_ - offset) return corrupt("record is cut off by the end of the file");
    return header;
}

Result<bool> PackWalker::next(Item& item) {
    if (position_ == end_) return false;
    auto check = [&]() -> Status {
        Bytes bytes;
        CORAL_TRY(item.header, header_at(position_, bytes));
        if (next_seq_ != 0 && item.header.seq != next_seq_) {
            return corrupt(fmt::format("record {} follows where {} is due", item.header.seq, next_seq_));
        }
        item.offset = position_;
        item.header_sum = load_le<std::uint64_t>(bytes.data() + bytes.size() - 8);
        std::uint64_t total = item.header.total();
        // Kept aside: the next fetch may move the window.
        tail_.assign(bytes.begin() + kRecordFixed, bytes.begin() + item.header.header_length - 8);
        if (payloads_) {
            CORAL_TRY(bytes, fetch(position_, total));
        }
        std::uint64_t body = item.header.header_length + item.header.payload_length;
        CORAL_TRY(Bytes tail, fetch(position_ + body, total - body));
        item.payload_sum = load_le<std::uint64_t>(tail.data());
        if (std::any_of(tail.begin() + 8, tail.end(), [](std::byte b) { return b != std::byte{0}; })) {
            return corrupt("padding of the record is not zero");
        }
        item.payload = {};
        if (payloads_) {
            CORAL_TRY(item.payload, fetch(position_ + item.header.header_length, item.header.payload_length));
            if (xxh3_64(item.payload, sum_seed(pack_.uuid(), position_)) != item.payload_sum) {
                return corrupt(
                    fmt::format("the checksum of the payload of this {} is wrong", kind_name(item.header.kind)));
            }
        }
        item.specific = tail_;
        return {};
    };
    if (Status checked = check(); !checked) return pack_.at(position_, std::move(checked).error());
    position_ += item.header.total();
    next_seq_ = item.header.seq + 1;
    return true;
}

void PackWalker::resync() {
    next_seq_ = 0;
    Bytes bytes;
    if (auto header = header_at(position_, bytes); header) {
        position_ += header->total();
        return;
    }
    for (position_ += 8; position_ < end_; position_ += 8) {
        if (end_ - position_ < kRecordMinimum) break;
        if (header_at(position_, bytes)) return;
    }
    position_ = end_;
}

std::string PackSet::path_of(const Uuid& uuid) const {
    return path_join(dir_, uuid.text() + ".pack");
}

Result<std::shared_ptr<PackFile>> PackSet::get(const Uuid& uuid) {
    if (auto open = open_.get(uuid)) return open;
    CORAL_TRY(std::shared_ptr<PackFile> pack, PackFile::open(os_, path_of(uuid)));
    if (pack->uuid() != uuid) return pack->at(0, corrupt("is the pack of another name"));
    open_.put(uuid, pack, 1);
    return pack;
}

Result<std::vector<Uuid>> PackSet::list() {
    CORAL_TRY(std::vector<std::string> names, os_.list_dir(dir_));
    std::vector<Uuid> found;
    for (const std::string& name : names) {
        if (name.size() != 41 || !name.ends_with(".pack")) continue;
        auto uuid = Uuid::parse(std::string_view(name).substr(0, 36));
        if (uuid && uuid->text() + ".pack" == name) found.push_back(*uuid);
    }
    return found;
}

}  // namespace coral::store
