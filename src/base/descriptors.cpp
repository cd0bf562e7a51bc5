// SPDX-License-Identifier: Apache-2.0
#include "coral/base/descriptors.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace coral {

// The descriptor's position, which lseek moves, is nobody's: all I/O is positional.
std::uint64_t next_data(const File& file, std::uint64_t offset, std::uint64_t size) {
    if (offset >= size || file.native_handle() < 0) return offset;
    const off_t at = ::lseek(file.native_handle(), static_cast<off_t>(offset), SEEK_DATA);
    if (at < 0) return errno == ENXIO ? size : offset;
    return std::min(static_cast<std::uint64_t>(at), size);
}

std::uint64_t next_hole(const File& file, std::uint64_t offset, std::uint64_t size) {
    if (offset >= size || file.native_handle() < 0) return size;
    const off_t at = ::lseek(file.native_handle(), static_cast<off_t>(offset), SEEK_HOLE);
    return at < 0 ? size : std::min(static_cast<std::uint64_t>(at), size);
}

Status reserve(const File& file, std::uint64_t length) {
    if (::fallocate(file.native_handle(), FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(length)) == 0) return {};
    return errno_error(errno, "fallocate");
}

std::uint64_t descriptor_limit() {
    struct rlimit files {};
    return ::getrlimit(RLIMIT_NOFILE, &files) == 0 ? files.rlim_cur : 1024;
}

}  // namespace coral
