// SPDX-License-Identifier: Apache-2.0
// The appender of this process: one pack at a time, whole records, under the pack's OFD lock.
//
// mutex_ is the one lock of the store that is held during I/O: a pack has one appender, and the place of a record
// (which its checksums depend on) is known only when its predecessor is in the file.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "store/index.hpp"

namespace coral::store {

struct Appended {
    Uuid pack;
    std::uint64_t offset = 0, stored = 0;
};

class PackWriter {
  public:
    PackWriter(Os& os, const Uuid& repo, PackSet& packs, Index& index, std::uint64_t pack_bytes, bool only_new = false)
        : os_(os), repo_(repo), packs_(packs), index_(index), pack_bytes_(pack_bytes), only_new_(only_new) {}
    ~PackWriter();

    // Appends a record and enters it in the index. On failure nothing was stored: the pack is left as it is, for ever,
    // and the next append begins another.
    Result<Appended> append(Kind kind, std::uint16_t flags, const AnyId& id, Bytes specific, Bytes payload);
    // fdatasync of the pack if it is ours at the moment; appends go on meanwhile.
    Result<bool> sync_own(const Uuid& pack);
    Status seal();

  private:
    Status ensure_open();
    Result<bool> take_over(const PackState& state);
    Status create();
    Status write(std::uint64_t offset, Bytes bytes);
    Status seal_locked();
    Status sync_or_close();
    void leave();
    void set_file(std::shared_ptr<File> file, const Uuid& uuid);

    Os& os_;
    const Uuid repo_;
    PackSet& packs_;
    Index& index_;
    const std::uint64_t pack_bytes_;
    const bool only_new_;  // never goes on with a pack that was there

    std::mutex mutex_;  // guards what follows; before Index's locks
    std::uint64_t end_ = 0, next_seq_ = 1;
    std::mutex
        file_mutex_;  // a leaf; with mutex_ guards changes of what follows, so that either lock suffices to read it
    std::shared_ptr<File> file_;
    Uuid uuid_;
};

}  // namespace coral::store
