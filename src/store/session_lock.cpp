// SPDX-License-Identifier: Apache-2.0
#include "store/session_lock.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "coral/base/bytes.hpp"
#include "coral/base/log.hpp"

namespace coral::store {
namespace {

constexpr auto kPause = std::chrono::milliseconds(3);
constexpr auto kPatience = std::chrono::seconds(120);

// The locks that this thread has sessions of: a second session of a thread must not wait at a gate that is closed until
// the first one ends.
thread_local std::vector<const SessionLock*> in_session;

std::string path_in(const std::string& dir, std::string_view name) {
    return path_join(path_join(dir, "run"), name);
}

Result<std::unique_ptr<File>> open_lock(Os& os, const std::string& dir, std::string_view name) {
    std::string path = path_in(dir, name);
    auto file = os.open(path, OpenMode::kOpenOrCreate);
    if (file || file.error().code != Errc::kNotFound) return file;
    (void)os.make_dir(path_parent(path));  // backups may leave run/ out
    return os.open(path, OpenMode::kOpenOrCreate);
}

constexpr std::string_view kSessions = "sessions", kGate = "sessions.gate";

}  // namespace

Status SessionLock::open_files() {
    if (sessions_) return {};
    CORAL_TRY(gate_, open_lock(os_, dir_, kGate));
    CORAL_TRY(sessions_, open_lock(os_, dir_, kSessions));
    return {};
}

Result<std::uint64_t> SessionLock::removals(File& file) {
    std::byte raw[8];
    CORAL_TRY(std::size_t got, file.read_at(0, raw));
    return got == sizeof raw ? load_le<std::uint64_t>(raw) : 0;
}

// False: the gate is closed.
Result<bool> SessionLock::try_enter() {
    std::lock_guard lock(mutex_);
    CORAL_CHECK(open_files());
    CORAL_TRY(bool open, gate_->try_lock(false));
    if (!open) return false;
    if (!held_) {
        auto held = sessions_->try_lock(false);
        held_ = held && *held;
    }
    if (held_) ++active_;
    CORAL_CHECK(gate_->unlock());
    return held_;
}

// Waits until the gate lets this process in.
Status SessionLock::enter() {
    for (auto start = std::chrono::steady_clock::now();;) {
        CORAL_TRY(bool entered, try_enter());
        if (entered) break;
        CORAL_CHECK(rest());
        if (std::chrono::steady_clock::now() - start > kPatience) {
            return make_error(Errc::kBusy,
                              fmt::format("{}: `coral gc` or `coral repack` has held this lock for two minutes; see "
                                          "who with `fuser {}`",
                                          path_in(dir_, kGate), path_in(dir_, kGate)));
        }
        std::this_thread::sleep_for(kPause);
    }
    Status looked = look();
    if (!looked) end(true);
    return looked;
}

Status SessionLock::begin() {
    bool nested = std::find(in_session.begin(), in_session.end(), this) != in_session.end();
    CORAL_CHECK(nested ? join() : enter());
    in_session.push_back(this);
    return {};
}

Status SessionLock::join() {
    {
        std::lock_guard lock(mutex_);
        if (active_ > 0) {
            ++active_;
            return {};
        }
    }
    return enter();
}

// Under the shared lock nothing goes away: what is seen now holds until the lock is given up.
Status SessionLock::look() {
    std::lock_guard lock(look_mutex_);
    CORAL_TRY(std::uint64_t now, removals(*sessions_));
    if (seen_ == now) return {};
    CORAL_CHECK(hooks_.forget());
    seen_ = now;
    return {};
}

void SessionLock::end(bool joined) {
    auto mine = joined ? in_session.rend() : std::find(in_session.rbegin(), in_session.rend(), this);
    if (mine != in_session.rend()) in_session.erase(std::next(mine).base());
    {
        std::lock_guard lock(mutex_);
        if (--active_ > 0) return;
    }
    if (Status done = rest(); !done) log_warn("{}", done.error().message);
}

// Something that waits in memory keeps the lock: nobody else can see what it refers to. When somebody waits at the
// gate, it goes to a pack now; else later, with more of its kind.
Status SessionLock::rest() {
    {
        std::lock_guard lock(mutex_);
        if (!held_ || active_ > 0) return {};
        if (hooks_.pending()) {
            CORAL_TRY(bool open, gate_->try_lock(false));
            if (open) return gate_->unlock();
        }
    }
    CORAL_CHECK(hooks_.flush());
    std::lock_guard lock(mutex_);
    if (!held_ || active_ > 0 || hooks_.pending()) return {};
    held_ = false;
    return sessions_->unlock();
}

Status SessionLock::tidy() {
    CORAL_CHECK(rest());
    {
        std::lock_guard lock(mutex_);
        CORAL_CHECK(open_files());
    }
    std::lock_guard lock(look_mutex_);
    CORAL_TRY(std::uint64_t now, removals(*sessions_));
    if (tidied_ == now) return {};
    CORAL_CHECK(hooks_.forget());
    tidied_ = now;  // not `seen_`: this removal may still be going on
    return {};
}

Result<SessionLock::Alone> SessionLock::alone(std::chrono::milliseconds patience) {
    Alone alone;
    CORAL_TRY(alone.gate_, open_lock(os_, dir_, kGate));
    CORAL_TRY(alone.sessions_, open_lock(os_, dir_, kSessions));
    auto start = std::chrono::steady_clock::now();
    for (File* file : {alone.gate_.get(), alone.sessions_.get()}) {
        while (true) {
            CORAL_TRY(bool locked, file->try_lock(true));
            if (locked) break;
            if (std::chrono::steady_clock::now() - start > patience) {
                return make_error(Errc::kBusy,
                                  fmt::format("{}: another process is storing something or checking the repository; "
                                              "see who with `fuser {}`",
                                              path_in(dir_, kSessions), path_in(dir_, kSessions)));
            }
            std::this_thread::sleep_for(kPause);
        }
    }
    return alone;
}

Status SessionLock::Alone::count_removal() {
    std::byte raw[8];
    CORAL_TRY(std::size_t got, sessions_->read_at(0, raw));
    std::uint64_t count = got == sizeof raw ? load_le<std::uint64_t>(raw) : 0;
    store_le<std::uint64_t>(raw, count + 1);
    return sessions_->write_at(0, raw);
}

}  // namespace coral::store
