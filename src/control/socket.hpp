// SPDX-License-Identifier: Apache-2.0
// Unix stream sockets that carry lines. The only code outside src/base that makes socket calls.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "coral/base/result.hpp"

namespace coral::control {

inline constexpr std::size_t kMaxLine = 16u << 20;
inline constexpr int kPeerTimeoutMs = 10'000;

class UniqueFd {
  public:
    UniqueFd() = default;
    explicit UniqueFd(int fd) : fd_(fd) {}
    UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    UniqueFd& operator=(UniqueFd&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~UniqueFd();
    int get() const { return fd_; }
    explicit operator bool() const { return fd_ >= 0; }

  private:
    int fd_ = -1;
};

// A line each way. Reading and writing may happen in two threads; neither twice at once.
class LineChannel {
  public:
    explicit LineChannel(UniqueFd fd) : fd_(std::move(fd)) {}
    // One line without its newline, whole within `timeout_ms` (negative: no limit). kNoData: the peer is gone, in the
    // middle of a line too; kBusy: it said too little; kTooLarge.
    Result<std::string> read_line(int timeout_ms);
    // `text` has no newline. Bounded by kPeerTimeoutMs for every piece that the peer takes.
    Status write_line(std::string_view text);
    void shut_down();  // wakes a reader in another thread
    // Closed by the peer, or shut down; waits up to `timeout_ms` for it.
    bool wait_closed(int timeout_ms);
    Result<uid_t> peer_uid() const;

  private:
    UniqueFd fd_;
    std::string pending_;  // bytes after the last line
};

Result<UniqueFd> listen_at(const std::string& path);  // socket file 0600
Result<UniqueFd> connect_to(const std::string& path, int timeout_ms);
// The next connection, or none when `wake` became readable.
Result<UniqueFd> accept_from(int listener, int wake);
// Makes the runtime directory (0700) or checks that the one there is ours alone.
Status make_runtime_dir(const std::string& dir);
// Removes sockets in `dir` that nobody listens on.
void remove_dead_sockets(const std::string& dir);

}  // namespace coral::control
