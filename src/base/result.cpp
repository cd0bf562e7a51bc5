// SPDX-License-Identifier: Apache-2.0
#include "coral/base/result.hpp"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace coral {
namespace {

struct Row {
    Errc code;
    int error;
    std::string_view name;
};

// The one table from category to errno. For from_errno the first row of an errno wins.
constexpr std::array<Row, 27> kTable{{
    {Errc::kNotFound, ENOENT, "not found"},
    {Errc::kExists, EEXIST, "exists"},
    {Errc::kInvalid, EINVAL, "invalid argument"},
    {Errc::kIo, EIO, "I/O error"},
    {Errc::kCorrupt, EIO, "corrupt data"},
    {Errc::kNoSpace, ENOSPC, "no space left"},
    {Errc::kNoSpace, EDQUOT, "no space left"},
    {Errc::kPermission, EPERM, "not permitted"},
    {Errc::kAccess, EACCES, "access denied"},
    {Errc::kReadOnly, EROFS, "read-only"},
    {Errc::kBusy, EBUSY, "busy"},
    {Errc::kUnsupported, EOPNOTSUPP, "not supported"},
    {Errc::kNotDirectory, ENOTDIR, "not a directory"},
    {Errc::kIsDirectory, EISDIR, "is a directory"},
    {Errc::kNotEmpty, ENOTEMPTY, "directory not empty"},
    {Errc::kNameTooLong, ENAMETOOLONG, "name too long"},
    {Errc::kCrossDevice, EXDEV, "cross-device"},
    {Errc::kTooLarge, EFBIG, "too large"},
    {Errc::kNoData, ENODATA, "no data"},
    {Errc::kRange, ERANGE, "buffer too small"},
    {Errc::kLoop, ELOOP, "too many levels"},
    {Errc::kBadHandle, EBADF, "bad handle"},
    {Errc::kConflict, EAGAIN, "conflict"},
    {Errc::kStale, ESTALE, "stale"},
    {Errc::kBeyondEnd, ENXIO, "beyond the end"},
    {Errc::kUnsupported, ENOSYS, "not supported"},
    {Errc::kInternal, EIO, "internal error"},
}};

}  // namespace

int to_errno(Errc code) {
    for (const Row& row : kTable) {
        if (row.code == code) return row.error;
    }
    return EIO;
}

Errc from_errno(int error) {
    for (const Row& row : kTable) {
        if (row.error == error) return row.code;
    }
    return Errc::kIo;
}

std::string_view to_string(Errc code) {
    for (const Row& row : kTable) {
        if (row.code == code) return row.name;
    }
    return "error";
}

Error Error::with(std::string_view context) && {
    message = fmt::format("{}: {}", context, message);
    return std::move(*this);
}

Error errno_error(int error, std::string_view what) {
    char text[128];
    return {from_errno(error), fmt::format("{}: {}", what, ::strerror_r(error, text, sizeof text))};
}

}  // namespace coral
