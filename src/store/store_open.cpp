// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "coral/base/log.hpp"
#include "coral/base/thread_pool.hpp"
#include "store/store_impl.hpp"

namespace coral::store {

Result<std::unique_ptr<Store>> Store::create(Os& os, const std::string& dir, const Uuid& repo,
                                             const StoreOptions& options) {
    Status made = os.make_dir(path_join(dir, "packs"));
    if (!made && made.error().code != Errc::kExists) return std::move(made).error();
    CORAL_CHECK(os.sync_dir(dir));
    return StoreImpl::start(os, dir, repo, options);
}

Result<std::unique_ptr<Store>> Store::open(Os& os, const std::string& dir, const Uuid& repo,
                                           const StoreOptions& options) {
    return StoreImpl::start(os, dir, repo, options);
}

StoreImpl::StoreImpl(Os& os, const std::string& dir, const Uuid& repo, const StoreOptions& options)
    : os_(os),
      dir_(dir),
      repo_(repo),
      options_(options),
      packs_(os, path_join(dir, "packs")),
      files_(options.cache_bytes / 16) {}

Result<std::unique_ptr<Store>> StoreImpl::start(Os& os, const std::string& dir, const Uuid& repo,
                                                const StoreOptions& options) {
    auto store = std::unique_ptr<StoreImpl>(new StoreImpl(os, dir, repo, options));
    std::string index_path = options.index_path.empty() ? path_join(dir, "index.db") : options.index_path;
    CORAL_TRY(store->index_, Index::open(os, index_path, repo, store->packs_, options.read_only));
    StoreImpl& s = *store;
    s.writer_ = std::make_unique<PackWriter>(os, repo, s.packs_, *s.index_, options.pack_bytes);
    s.groups_ = std::make_unique<GroupBuffer>(*s.writer_);
    s.reader_ = std::make_unique<SegmentReader>(s.packs_, *s.index_, *s.groups_,
                                                options.cache_bytes - options.cache_bytes / 16);
    if (!options.read_only) {
        SessionHooks hooks{[&s] { return s.groups_->pending(); }, [&s] { return s.groups_->flush(); },
                           [&s] { return s.forget_gone(); }};
        s.sessions_ = std::make_unique<SessionLock>(os, dir, std::move(hooks));
    }
    s.ahead_ = std::make_unique<DecodeAhead>(*s.reader_, std::max<std::size_t>(hardware_threads(), 2));
    s.index_->set_sync([&s](const Uuid& uuid) -> Status {
        CORAL_TRY(bool own, s.writer_->sync_own(uuid));
        if (own) return {};
        CORAL_TRY(auto pack, s.packs_.get(uuid));
        return pack->file().sync_data();
    });
    return std::unique_ptr<Store>(std::move(store));
}

StoreImpl::~StoreImpl() {
    ahead_.reset();
    if (!index_ || !writer_ || options_.read_only) return;
    // A courtesy to the next opener, who would else read the tail; nobody was promised that this succeeds.
    Status flushed = groups_->flush();
    if (flushed) flushed = index_->sync();
    if (!flushed) log_warn("{}: not everything was written before closing: {}", dir_, flushed.error().message);
}

Status StoreImpl::writable() const {
    if (options_.read_only) return make_error(Errc::kReadOnly, fmt::format("{}: is open for reading only", dir_));
    return {};
}

Result<Session> StoreImpl::session() {
    if (!sessions_) return Session();
    CORAL_CHECK(sessions_->begin());
    return Session([this] { sessions_->end(false); });
}

Result<Session> StoreImpl::join() {
    CORAL_CHECK(writable());
    CORAL_CHECK(sessions_->join());
    return Session([this] { sessions_->end(true); });
}

Status StoreImpl::tidy() {
    return sessions_ ? sessions_->tidy() : Status();
}

Status StoreImpl::forget_gone() {
    CORAL_TRY(bool any, index_->forget_gone());
    (void)any;
    reader_->forget();
    files_.clear();
    return {};
}

Status StoreImpl::sync() {
    CORAL_CHECK(writable());
    CORAL_CHECK(groups_->flush());
    CORAL_CHECK(index_->sync());
    return sessions_->rest();
}

Status StoreImpl::seal() {
    CORAL_CHECK(writable());
    CORAL_CHECK(groups_->flush());
    CORAL_CHECK(writer_->seal());
    CORAL_CHECK(index_->sync());
    return sessions_->rest();
}

Status StoreImpl::reindex(const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
    if (!options_.read_only) CORAL_CHECK(groups_->flush());
    CORAL_CHECK(index_->rebuild(progress));
    reader_->forget();
    files_.clear();
    return {};
}

Result<StoreStats> StoreImpl::stats() {
    StoreStats stats;
    CORAL_CHECK(index_->totals(stats));
    CORAL_TRY(std::vector<Uuid> uuids, packs_.list());
    for (const Uuid& uuid : uuids) {
        auto stat = os_.stat(packs_.path_of(uuid));
        if (!stat) continue;
        ++stats.packs;
        stats.pack_bytes += stat->size;
        auto state = index_->pack(uuid);
        if (state && state->phase == PackPhase::kSealed) ++stats.sealed_packs;
    }
    stats.cache_hits = reader_->cache().hits();
    stats.cache_misses = reader_->cache().misses();
    stats.cache_bytes = reader_->cache().bytes();
    return stats;
}

Status StoreImpl::scan(const std::function<Status(const Uuid& pack, const RecordView&)>& visit) {
    CORAL_TRY(Session session, this->session());
    if (!options_.read_only) CORAL_CHECK(groups_->flush());
    CORAL_TRY(bool changed, index_->refresh());
    (void)changed;
    for (const PackState& state : index_->packs()) {
        CORAL_TRY(auto pack, packs_.get(state.uuid));
        CORAL_TRY(FileStat stat, pack->file().stat());
        CORAL_TRY(auto footer, pack->read_footer(stat.size));
        PackWalker walker(*pack, kFileHeaderSize, footer ? stat.size - kFooterSize : stat.size, 1, true);
        PackWalker::Item item;
        while (true) {
            auto more = walker.next(item);
            if (!more || !*more) break;  // what does not verify is for verify()
            RecordView view;
            view.kind = item.header.kind;
            view.id = item.header.id;
            view.offset = item.offset;
            view.stored_bytes = item.header.total();
            view.seq = item.header.seq;
            view.specific = item.specific;
            view.payload = item.payload;
            CORAL_CHECK(visit(state.uuid, view));
        }
    }
    return {};
}

}  // namespace coral::store
