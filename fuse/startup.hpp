// SPDX-License-Identifier: Apache-2.0
// Becoming a daemon, and telling whoever called whether it worked.
#pragma once

#include <string>

#include "coral/base/result.hpp"

namespace coral::fuse {

// On standard error, one line, as `coralfs: error: …`; after called_by_coral() as `coral: error: …`, since that is what
// the user has called.
void print_error(const std::string& message);
void called_by_coral();
bool is_called_by_coral();

// The child's end of the pipe to the waiting parent. In the foreground there is no parent, and nothing is sent.
class Starter {
  public:
    Starter() = default;
    explicit Starter(int fd) : fd_(fd) {}
    int descriptor() const { return fd_; }
    bool in_background() const { return fd_ >= 0; }
    void report_failure(const std::string& message);
    // The mount answers requests: lets go of the terminal.
    void report_ready();
    // A child of ours has it now, and will report: lets go of the terminal, too.
    void leave_to_another();

  private:
    int fd_ = -1;
};

// Forks. In the child: a new session, / as working directory, nothing inherited but standard error until report_ready.
// In the parent: waits until the mount at `mount_point` answers, prints why it does not, and never returns.
Result<Starter> go_to_background(const std::string& mount_point);

// The log in the repository; makes its folder.
std::string log_path_of(const std::string& repository);

// Open files: as many as we may have. Memory: few arenas, given back early.
void set_process_limits();
// SIGTERM, SIGINT and SIGHUP are waited for by one thread, in all others blocked; SIGPIPE is ignored.
void block_signals();
int wait_for_termination_signal();
bool termination_is_due();  // SIGTERM or SIGINT has come, and waits for wait_for_termination_signal()

// As root: read_ahead_kb of the mount's bdi. From no FUSE thread. Failure is only logged.
void set_kernel_readahead(const std::string& mount_point, unsigned kilobytes);
unsigned kernel_readahead_kb(const std::string& mount_point);  // 0: not known

}  // namespace coral::fuse
