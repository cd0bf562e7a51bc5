// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "fuse_api.hpp"
#include "mount.hpp"
#include "mount_options.hpp"

namespace coral::fuse {

// A fuse_session and its mount. Made, mounted and looped by the main thread; `wake` from any.
class Session {
  public:
    // `mount` null: only to mount, no request is ever answered.
    static Result<std::unique_ptr<Session>> create(Mount* mount, const MountOptions& options,
                                                   const std::string& repository);
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    Status attach(const std::string& mount_point);
    // A connection that somebody else has mounted, and unmounts.
    Status adopt(int descriptor);
    int descriptor() const { return fuse_session_fd(session_); }
    const std::string& device() const { return device_; }  // of what attach() has mounted, as in mountinfo
    bool connected() const;                                // the mount is still there
    // Without unmounting: when nobody else has it either, clients get ENOTCONN.
    void drop_connection();
    // Serves requests until the mount is gone or leave() was called.
    int loop(unsigned max_threads);
    // Makes loop() return. Repeats its knocking until it does: libfuse may look away at the wrong moment.
    void leave();
    // Closes the descriptor and unmounts lazily if somebody has not done so yet. No request is answered afterwards.
    void detach();

    fuse_session* raw() const { return session_; }

  private:
    explicit Session(fuse_session* session) : session_(session) {}
    fuse_session* session_;
    pthread_t looping_{};
    std::atomic<bool> in_loop_{false};
    bool attached_ = false;
    std::string device_;
};

}  // namespace coral::fuse
