// SPDX-License-Identifier: Apache-2.0
// FUSE passthrough with a libfuse that does not know it (3.14; its own API came with 3.17): the kernel reads and writes
// a file below without us. Requests and answers go through our hands (channel.hpp), so the few fields that it does not
// fill are put into the answers on their way: INIT's flags and stack depth, OPEN's and CREATE's flag and backing id.
// Works with every later libfuse, too. Layouts: <linux/fuse.h> of Linux 6.9.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>

#include "coral/vfs/filesystem.hpp"
#include "fuse_api.hpp"

namespace coral::fuse {

class Passthrough final : public vfs::BackingFiles {
  public:
    // Between fuse_session_mount and the loop. `why_not` is empty when it is wanted; else requests pass through
    // unchanged.
    void attach(fuse_session* session, const std::string& why_not);
    // Instead of probe(), in a process that follows another one: as it was.
    void go_on(bool usable);
    // Each request as it was read, in the thread that handles it, and each answer before it is written.
    static void note_request(const char* bytes, std::size_t size);
    static void amend_answer(iovec* iov, int count);
    // After INIT: tries with a file of the repository. Afterwards usable() and why_not() are settled.
    void probe(int descriptor);

    bool usable() const { return usable_; }
    std::string why_not() const;

    Result<std::uint32_t> open_backing(int descriptor) override;
    void close_backing(std::uint32_t id) override;

    // The request that this thread is handling must clear set-user-id and set-group-id, as a write by an ordinary user
    // does. With this protocol (FUSE_HANDLE_KILLPRIV_V2, which libfuse 3.14 does not know either) the kernel need not
    // ask for security.capability before each write: that would cost a round trip, and stop a writer whose daemon died.
    static bool kills_privileges();

    // Linux 6.6 and later map files that are read and written directly, too, if INIT's answer says so: it does (libfuse
    // 3.14 does not know that flag, either). Known from INIT on.
    static bool direct_can_be_mapped();

    // The answer that this thread gives next, to an OPEN or a CREATE, names this file.
    static void answer_with(std::uint32_t backing);

  private:
    void refuse(std::string reason);
    int device_ = -1;
    std::atomic<bool> usable_{false};
    mutable std::mutex mutex_;  // guards why_not_
    std::string why_not_ = "not tried yet";
};

}  // namespace coral::fuse
