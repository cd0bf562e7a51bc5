// SPDX-License-Identifier: Apache-2.0
// Reading packs: one open file, a walker over its records, and the bounded set of open files. Errors name file and
// offset.
#pragma once

#include <memory>
#include <string>

#include "coral/base/lru.hpp"
#include "coral/base/os.hpp"
#include "store/pack_format.hpp"

namespace coral::store {

struct LoadedHeader {
    RecordHeader header;
    Buffer bytes;  // the whole header
    Bytes specific() const { return Bytes(bytes).subspan(kRecordFixed, header.specific_length()); }
};

// An open pack. Thread-safe: reads are positional.
class PackFile {
  public:
    static Result<std::shared_ptr<PackFile>> open(Os& os, const std::string& path);

    const FileHeader& header() const { return header_; }
    const Uuid& uuid() const { return header_.uuid; }
    const std::string& path() const { return path_; }
    File& file() { return *file_; }

    // "path at OFFSET: what"
    Error at(std::uint64_t offset, Error error) const;
    // Exactly out.size() bytes or an error.
    Status read(std::uint64_t offset, MutableBytes out);
    // The header of the record at `offset`, its checksum verified.
    Result<LoadedHeader> read_header(std::uint64_t offset);
    // The payload of that record, its checksum verified.
    Result<Buffer> read_payload(std::uint64_t offset, const RecordHeader& header);
    // Nothing when the file does not end in a footer; `size` is the file's.
    Result<std::optional<Footer>> read_footer(std::uint64_t size);
    // The entries of a sealed pack's INDEX record, verified against the footer.
    Result<std::vector<IndexEntry>> read_index(const Footer& footer, std::uint64_t size);

  private:
    PackFile(std::string path, std::unique_ptr<File> file) : path_(std::move(path)), file_(std::move(file)) {}
    std::string path_;
    std::unique_ptr<File> file_;
    FileHeader header_;
};

// Goes over the records of [begin, end) in order. Memory: one record (≤ 33 MiB) with payloads, else one header.
class PackWalker {
  public:
    struct Item {
        RecordHeader header;
        std::uint64_t offset = 0;
        std::uint64_t payload_sum = 0;
        std::uint64_t header_sum = 0;
        Bytes specific;  // valid until the next call
        Bytes payload;   // likewise; empty without payloads
    };
    // Without `payloads` they are neither read nor verified.
    PackWalker(PackFile& pack, std::uint64_t begin, std::uint64_t end, std::uint64_t next_seq, bool payloads);
    // False at the end. An error is what is wrong with the record at position(); the walker then stays there.
    Result<bool> next(Item& item);
    std::uint64_t position() const { return position_; }
    std::uint64_t next_seq() const { return next_seq_; }
    // For fsck, after an error: passes over the record if its header is good, else looks for the next one that
    // verifies.
    void resync();

  private:
    Result<Bytes> fetch(std::uint64_t offset, std::uint64_t length);
    Result<RecordHeader> header_at(std::uint64_t offset, Bytes& bytes);

    PackFile& pack_;
    std::uint64_t position_, end_, next_seq_;
    bool payloads_;
    Buffer window_;
    std::uint64_t window_begin_ = 0, window_length_ = 0;
    Buffer tail_;
};

// packs/<uuid>.pack by uuid; keeps at most kMaxOpen open. Thread-safe.
class PackSet {
  public:
    PackSet(Os& os, std::string dir) : os_(os), dir_(std::move(dir)) {}
    std::string path_of(const Uuid& uuid) const;
    const std::string& dir() const { return dir_; }
    Result<std::shared_ptr<PackFile>> get(const Uuid& uuid);
    void forget(const Uuid& uuid) { open_.erase(uuid); }
    // Uuids of the *.pack files of the directory.
    Result<std::vector<Uuid>> list();
    Os& os() { return os_; }

  private:
    static constexpr std::size_t kMaxOpen = 128;
    Os& os_;
    std::string dir_;
    Lru<Uuid, PackFile> open_{kMaxOpen};
};

}  // namespace coral::store
