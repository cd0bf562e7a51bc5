// SPDX-License-Identifier: Apache-2.0
// Who may rely on what the store has said, and when something may be taken away (docs/architecture.md, "Removing").
//
// Two files in run/. `sessions`: a process holds it shared while one of its sessions runs or something that it put
// still waits in memory; who removes packs holds it alone. Its 8 bytes count removals. `sessions.gate`: passed by
// whoever begins a session, closed by who waits to be alone, so that sessions that keep coming cannot keep him waiting.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "coral/base/os.hpp"

namespace coral::store {

struct SessionHooks {
    std::function<bool()> pending;   // something that was put is not in a pack yet
    std::function<Status()> flush;   // puts it there
    std::function<Status()> forget;  // packs may be gone: what is remembered of them counts no more
};

class SessionLock {
  public:
    SessionLock(Os& os, std::string dir, SessionHooks hooks)
        : os_(os), dir_(std::move(dir)), hooks_(std::move(hooks)) {}

    // Waits while packs are being removed; kBusy after two minutes. A thread that has a session gets its second at
    // once.
    Status begin();
    // For one put: joins whatever session of this process runs, for its thread waits for us.
    Status join();
    void end(bool joined);
    // Nothing waits in memory any more: the lock goes unless a session runs.
    Status rest();
    // Lets go of the lock if no session runs and somebody waits for it; notices removals. From time to time.
    Status tidy();

    // Alone: no session of any process runs and everything that was put is in packs. Held until it is destroyed.
    class Alone {
      public:
        // Others may have to look again at what is there: before the first pack goes.
        Status count_removal();

      private:
        friend class SessionLock;
        std::unique_ptr<File> gate_, sessions_;
    };
    // kBusy when sessions did not end within `patience`; they are held up no longer than that.
    Result<Alone> alone(std::chrono::milliseconds patience);

  private:
    Status open_files();
    Status enter();
    Result<bool> try_enter();
    Status look();
    Result<std::uint64_t> removals(File& file);

    Os& os_;
    const std::string dir_;
    const SessionHooks hooks_;

    std::mutex mutex_;  // guards what follows; held for a few calls of fcntl that do not wait
    std::unique_ptr<File> gate_, sessions_;
    std::uint64_t active_ = 0;
    bool held_ = false;

    std::mutex look_mutex_;  // one thread looks what is gone; before the index's locks; guards the rest
    std::optional<std::uint64_t> seen_, tidied_;
};

}  // namespace coral::store
