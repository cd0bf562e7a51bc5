// SPDX-License-Identifier: Apache-2.0
// A request that can be answered once. libfuse frees it in the first reply, even when sending fails: so no return value
// is ever a reason to reply again.
#pragma once

#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include "fuse_api.hpp"
#include "mount.hpp"

namespace coral::fuse {

// Destroyed unanswered: EIO, and counted as a bug.
class Request {
  public:
    Request(fuse_req_t raw, const char* operation) : raw_(raw), operation_(operation) {}
    Request(Request&& other) noexcept : raw_(std::exchange(other.raw_, nullptr)), operation_(other.operation_) {}
    Request& operator=(Request&&) = delete;
    ~Request();

    Mount& mount() const { return *static_cast<Mount*>(fuse_req_userdata(raw_)); }
    vfs::Filesystem& fs() const { return mount().fs; }
    vfs::Caller caller() const;
    const char* operation() const { return operation_; }
    bool answered() const { return raw_ == nullptr; }

    // Each ends the request. False: the kernel did not take the answer (the caller was killed meanwhile), so what the
    // answer handed over (a reference, a handle) is still ours.
    bool error(int number);
    bool error(const Error& error);  // logs what a person should know
    bool ok() { return this->error(0); }
    bool status(const Status& status) { return status ? ok() : this->error(status.error()); }
    bool none();
    bool entry(const vfs::Entry& entry);
    bool attributes(const vfs::Entry& entry);
    bool created(const vfs::Entry& entry, const fuse_file_info& info);
    bool opened(const fuse_file_info& info);
    bool data(const void* bytes, std::size_t size);
    bool written(std::size_t size, LateReplies::Clock::time_point when);  // held back until then
    bool link(const std::string& target);
    bool xattr_size(std::size_t size);
    bool space(const struct statvfs& space);
    bool offset(off_t offset);

    // For fuse_add_direntry, which wants the request but does not answer it.
    fuse_req_t raw() const { return raw_; }

  private:
    fuse_req_t take();
    fuse_req_t raw_;
    const char* operation_;
};

void fill_stat(const vfs::Attr& attr, struct stat& st);
fuse_entry_param entry_param(const vfs::Entry& entry);
void log_exception(const char* operation, const char* what);

// The C boundary: nothing is thrown across it.
template <class F>
void handle(fuse_req_t raw, const char* operation, F&& body) noexcept {
    Request request(raw, operation);
    try {
        body(request);
    } catch (const std::bad_alloc&) {
        if (!request.answered()) request.error(ENOMEM);
    } catch (const std::exception& e) {
        log_exception(operation, e.what());
        if (!request.answered()) request.error(EIO);
    } catch (...) {
        if (!request.answered()) request.error(EIO);
    }
}

}  // namespace coral::fuse
