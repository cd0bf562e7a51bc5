// SPDX-License-Identifier: Apache-2.0
// Result<T>: what a function returns when it can fail for outside reasons (disk, user, network, bytes from a file).
// Broken invariants throw; nothing throws across a C callback. Debian 12's g++ has no std::expected; this has its
// shape.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

namespace coral {

// The category of an error. Each maps to one errno (to_errno) and one habit of the command line.
enum class Errc {
    kNotFound,      // ENOENT
    kExists,        // EEXIST
    kInvalid,       // EINVAL: the caller asked for something that makes no sense
    kCorrupt,       // EIO: bytes on disk do not verify
    kIo,            // EIO: the disk said no
    kNoSpace,       // ENOSPC
    kPermission,    // EPERM: never allowed here
    kAccess,        // EACCES: not allowed to this user
    kReadOnly,      // EROFS
    kBusy,          // EBUSY
    kUnsupported,   // EOPNOTSUPP
    kNotDirectory,  // ENOTDIR
    kIsDirectory,   // EISDIR
    kNotEmpty,      // ENOTEMPTY
    kNameTooLong,   // ENAMETOOLONG
    kCrossDevice,   // EXDEV
    kTooLarge,      // EFBIG
    kNoData,        // ENODATA: missing xattr, or content dropped on purpose
    kRange,         // ERANGE: the caller's buffer is too small
    kLoop,          // ELOOP
    kBadHandle,     // EBADF
    kConflict,      // EAGAIN: a compare-and-swap lost; the caller may try again
    kStale,         // ESTALE
    kBeyondEnd,     // ENXIO: SEEK_DATA or SEEK_HOLE past the end
    kInternal,      // EIO: a bug of ours
};

int to_errno(Errc code);
Errc from_errno(int error);
std::string_view to_string(Errc code);

struct Error {
    Errc code = Errc::kInternal;
    std::string message;  // names the file, the cause and, where there is one, the fix; no trailing full stop

    // "context: message"
    Error with(std::string_view context) &&;
};

inline Error make_error(Errc code, std::string message) {
    return Error{code, std::move(message)};
}
// From errno: category and "what: No space left on device".
Error errno_error(int error, std::string_view what);

template <class T>
class [[nodiscard]] Result {
  public:
    Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: implicit by design
    Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: implicit by design

    bool ok() const { return state_.index() == 0; }
    explicit operator bool() const { return ok(); }

    T& value() & { return std::get<0>(state_); }
    const T& value() const& { return std::get<0>(state_); }
    T&& value() && { return std::get<0>(std::move(state_)); }
    T& operator*() & { return value(); }
    const T& operator*() const& { return value(); }
    T&& operator*() && { return std::move(*this).value(); }
    T* operator->() { return &value(); }
    const T* operator->() const { return &value(); }
    T value_or(T other) const& { return ok() ? value() : std::move(other); }

    const Error& error() const& { return std::get<1>(state_); }
    Error&& error() && { return std::get<1>(std::move(state_)); }

  private:
    std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
  public:
    Result() = default;
    Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit by design

    bool ok() const { return !error_.has_value(); }
    explicit operator bool() const { return ok(); }
    void value() const {}
    const Error& error() const& { return *error_; }
    Error&& error() && { return std::move(*error_); }

  private:
    std::optional<Error> error_;
};

using Status = Result<void>;

}  // namespace coral

#define CORAL_CAT2(a, b) a##b
#define CORAL_CAT(a, b) CORAL_CAT2(a, b)

// CORAL_TRY(auto x, f()): x = value, or return the error. (__COUNTER__: uses may nest inside lambdas without
// shadowing.)
#define CORAL_TRY(decl, expr) CORAL_TRY_IMPL(CORAL_CAT(coral_try_, __COUNTER__), decl, expr)
#define CORAL_TRY_IMPL(tmp, decl, expr)      \
    auto tmp = (expr);                       \
    if (!tmp) return std::move(tmp).error(); \
    decl = std::move(tmp).value()

// CORAL_CHECK(f()): return the error, if any.
#define CORAL_CHECK(expr) CORAL_CHECK_IMPL(CORAL_CAT(coral_check_, __COUNTER__), expr)
#define CORAL_CHECK_IMPL(tmp, expr)                                 \
    do {                                                            \
        if (auto tmp = (expr); !tmp) return std::move(tmp).error(); \
    } while (false)
