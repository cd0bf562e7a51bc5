// SPDX-License-Identifier: Apache-2.0
#include "base/sqlite_shim.hpp"

#include <fmt/format.h>
#include <sqlite3.h>

#include <atomic>
#include <new>
#include <stdexcept>

namespace coral {

namespace {

struct Registration {
    sqlite3_vfs* real;
    SqliteObserver* observer;
};
SqliteObserver* observer_of(sqlite3_vfs* vfs) {
    return static_cast<Registration*>(vfs->pAppData)->observer;
}
sqlite3_vfs* real_of(sqlite3_vfs* vfs) {
    return static_cast<Registration*>(vfs->pAppData)->real;
}

// What SQLite allocates for an open file: ours, and right behind it that of the real VFS.
struct ShimFile {
    sqlite3_file base;
    SqliteObserver* observer;  // null for SQLite's nameless temporary files
    std::uint64_t number;
    bool sync_directory;

    sqlite3_file* real() { return reinterpret_cast<sqlite3_file*>(this + 1); }
};
static_assert(sizeof(ShimFile) % 8 == 0);  // what SQLite aligns to

ShimFile* shim(sqlite3_file* file) {
    return reinterpret_cast<ShimFile*>(file);
}

// An outcome of the real VFS, carried through the observer as a Status and out again unharmed.
class Call {
  public:
    explicit Call(int fallback) : fallback_(fallback) {}
    Status did(int code) {
        code_ = code;
        if (code == SQLITE_OK) return {};
        return make_error((code & 0xff) == SQLITE_FULL ? Errc::kNoSpace : Errc::kIo, sqlite3_errstr(code));
    }
    int result(bool ok, Errc code) const {
        if (ok) return SQLITE_OK;
        if (code_ != SQLITE_OK) return code_;
        return code == Errc::kNoSpace && fallback_ == SQLITE_IOERR_WRITE ? SQLITE_FULL : fallback_;
    }
    int result(const Status& status) const {
        return result(status.ok(), status.ok() ? Errc::kIo : status.error().code);
    }

  private:
    int fallback_;
    int code_ = SQLITE_OK;
};

int shim_close(sqlite3_file* file) {
    sqlite3_file* real = shim(file)->real();
    return real->pMethods ? real->pMethods->xClose(real) : SQLITE_OK;
}

int shim_read(sqlite3_file* file, void* out, int size, sqlite3_int64 offset) {
    sqlite3_file* real = shim(file)->real();
    return real->pMethods->xRead(real, out, size, offset);
}

int shim_write(sqlite3_file* file, const void* data, int size, sqlite3_int64 offset) {
    sqlite3_file* real = shim(file)->real();
    SqliteObserver* observer = shim(file)->observer;
    if (!observer) return real->pMethods->xWrite(real, data, size, offset);
    Call call(SQLITE_IOERR_WRITE);
    Bytes bytes(static_cast<const std::byte*>(data), static_cast<std::size_t>(size));
    return call.result(
        observer->sqlite_write(shim(file)->number, static_cast<std::uint64_t>(offset), bytes, [&](Bytes part) {
            return call.did(real->pMethods->xWrite(real, part.data(), static_cast<int>(part.size()), offset));
        }));
}

int shim_truncate(sqlite3_file* file, sqlite3_int64 size) {
    sqlite3_file* real = shim(file)->real();
    SqliteObserver* observer = shim(file)->observer;
    if (!observer) return real->pMethods->xTruncate(real, size);
    Call call(SQLITE_IOERR_TRUNCATE);
    return call.result(observer->sqlite_truncate(shim(file)->number, static_cast<std::uint64_t>(size),
                                                 [&] { return call.did(real->pMethods->xTruncate(real, size)); }));
}

int shim_sync(sqlite3_file* file, int flags) {
    sqlite3_file* real = shim(file)->real();
    SqliteObserver* observer = shim(file)->observer;
    if (!observer) return real->pMethods->xSync(real, flags);
    Call call(SQLITE_IOERR_FSYNC);
    int code = call.result(observer->sqlite_sync(shim(file)->number, shim(file)->sync_directory,
                                                 [&] { return call.did(real->pMethods->xSync(real, flags)); }));
    if (code == SQLITE_OK) shim(file)->sync_directory = false;
    return code;
}

int shim_file_size(sqlite3_file* file, sqlite3_int64* size) {
    sqlite3_file* real = shim(file)->real();
    return real->pMethods->xFileSize(real, size);
}

int shim_lock(sqlite3_file* file, int level) {
    sqlite3_file* real = shim(file)->real();
    return real->pMethods->xLock(real, level);
}

int shim_unlock(sqlite3_file* file, int level) {
    sqlite3_file* real = shim(file)->real();
    return real->pMethods->xUnlock(real, level);
}

int shim_check_reserved_lock(sqlite3_file* file, int* out) {
    sqlite3_file* real = shim(file)->real();
    return real->pMethods->xCheckReservedLock(real, out);
}

int shim_file_control(sqlite3_file* file, int op, void* arg) {
    sqlite3_file* real = shim(file)->real();
    return real->pMethods->xFileControl(real, op, arg);
}

int shim_sector_size(sqlite3_file* file) {
    sqlite3_file* real = shim(file)->real();
    return real->pMethods->xSectorSize(real);
}

int shim_device_characteristics(sqlite3_file* file) {
    sqlite3_file* real = shim(file)->real();
    return real->pMethods->xDeviceCharacteristics(real);
}

int shim_shm_map(sqlite3_file* file, int page, int size, int extend, void volatile** out) {
    sqlite3_file* real = shim(file)->real();
    return real->pMethods->xShmMap(real, page, size, extend, out);
}

int shim_shm_lock(sqlite3_file* file, int offset, int count, int flags) {
    sqlite3_file* real = shim(file)->real();
    return real->pMethods->xShmLock(real, offset, count, flags);
}

void shim_shm_barrier(sqlite3_file* file) {
    sqlite3_file* real = shim(file)->real();
    real->pMethods->xShmBarrier(real);
}

int shim_shm_unmap(sqlite3_file* file, int remove) {
    sqlite3_file* real = shim(file)->real();
    return real->pMethods->xShmUnmap(real, remove);
}

// Version 2: shared memory, but no xFetch: a database that is mapped could be changed past the observer.
constexpr sqlite3_io_methods kMethods = [] {
    sqlite3_io_methods methods{};
    methods.iVersion = 2;
    methods.xClose = shim_close;
    methods.xRead = shim_read;
    methods.xWrite = shim_write;
    methods.xTruncate = shim_truncate;
    methods.xSync = shim_sync;
    methods.xFileSize = shim_file_size;
    methods.xLock = shim_lock;
    methods.xUnlock = shim_unlock;
    methods.xCheckReservedLock = shim_check_reserved_lock;
    methods.xFileControl = shim_file_control;
    methods.xSectorSize = shim_sector_size;
    methods.xDeviceCharacteristics = shim_device_characteristics;
    methods.xShmMap = shim_shm_map;
    methods.xShmLock = shim_shm_lock;
    methods.xShmBarrier = shim_shm_barrier;
    methods.xShmUnmap = shim_shm_unmap;
    return methods;
}();

int shim_open(sqlite3_vfs* vfs, const char* path, sqlite3_file* raw, int flags, int* out_flags) {
    ShimFile* file = new (raw) ShimFile{};
    sqlite3_vfs* real = real_of(vfs);
    auto open = [&] { return real->xOpen(real, path, file->real(), flags, out_flags); };
    if (!path) {
        int code = open();
        if (file->real()->pMethods) file->base.pMethods = &kMethods;
        return code;
    }
    // As unixOpen decides: a new journal's name must reach the disk together with its first sync.
    constexpr int kJournals = SQLITE_OPEN_SUPER_JOURNAL | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL;
    file->sync_directory = (flags & SQLITE_OPEN_CREATE) && (flags & kJournals);
    Call call(SQLITE_CANTOPEN);
    Result<std::uint64_t> number =
        observer_of(vfs)->sqlite_open(path, (flags & SQLITE_OPEN_CREATE) != 0, [&] { return call.did(open()); });
    // SQLite closes the file exactly when pMethods is set, whatever xOpen returned.
    if (file->real()->pMethods) file->base.pMethods = &kMethods;
    if (!number) return call.result(false, number.error().code);
    file->observer = observer_of(vfs);
    file->number = *number;
    return SQLITE_OK;
}

int shim_delete(sqlite3_vfs* vfs, const char* path, int sync_directory) {
    sqlite3_vfs* real = real_of(vfs);
    Call call(SQLITE_IOERR_DELETE);
    return call.result(observer_of(vfs)->sqlite_remove(
        path, sync_directory != 0, [&] { return call.did(real->xDelete(real, path, sync_directory)); }));
}

}  // namespace

struct SqliteShim::Vfs {
    Registration registration{};
    sqlite3_vfs vfs{};
    std::string name;
};

SqliteShim::SqliteShim(SqliteObserver& observer) : vfs_(std::make_unique<Vfs>()) {
    static std::atomic<unsigned> counter{0};
    sqlite3_vfs* real = sqlite3_vfs_find("unix");
    if (!real) throw std::runtime_error("SQLite has no unix VFS");
    vfs_->registration = {real, &observer};
    vfs_->name = fmt::format("coral-shim-{}", counter++);
    // The other methods of the unix VFS never look at the VFS they are called on.
    vfs_->vfs = *real;
    vfs_->vfs.pNext = nullptr;
    vfs_->vfs.zName = vfs_->name.c_str();
    vfs_->vfs.pAppData = &vfs_->registration;
    vfs_->vfs.szOsFile = static_cast<int>(sizeof(ShimFile)) + real->szOsFile;
    vfs_->vfs.xOpen = shim_open;
    vfs_->vfs.xDelete = shim_delete;
    if (sqlite3_vfs_register(&vfs_->vfs, 0) != SQLITE_OK) throw std::runtime_error("SQLite refuses a VFS");
}

SqliteShim::~SqliteShim() {
    sqlite3_vfs_unregister(&vfs_->vfs);
}

const std::string& SqliteShim::name() const {
    return vfs_->name;
}

}  // namespace coral
