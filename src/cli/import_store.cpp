// SPDX-License-Identifier: Apache-2.0
#include "cli/import_store.hpp"

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "cli/text.hpp"

namespace coral::cli {
namespace {

constexpr std::size_t kWorkers = 2;  // one file's hashing overlaps another's encoding; more only costs memory
constexpr auto kRedraw = std::chrono::milliseconds(100);

bool same_file(const FileStat& a, const FileStat& b) {
    return a.inode == b.inode && a.device == b.device && a.size == b.size && a.mtime_ns == b.mtime_ns;
}

Error changed(const std::string& source) {
    return make_error(Errc::kConflict,
                      fmt::format("{}: changed while it was read; add it again when it is at rest; nothing was "
                                  "added",
                                  quote_name(source)));
}

class Importer {
  public:
    Importer(repo::Repository& repository, ThreadPool& pool, const ImportPlan& plan, repo::BaseMap& bases)
        : repository_(repository),
          plan_(plan),
          bases_(bases),
          ingestor_(repository.store(), repository.base_index(), pool, pool.size() + 1) {
        out_.requests.resize(plan.items.size());
    }

    Result<Imported> run(Progress& progress) {
        std::vector<std::thread> workers;
        std::size_t count = std::min<std::size_t>(kWorkers, std::max<std::uint64_t>(plan_.files, 1));
        running_ = count;
        for (std::size_t i = 0; i < count; ++i) workers.emplace_back([this] { work(); });
        {
            std::unique_lock lock(mutex_);
            while (!done_.wait_for(lock, kRedraw, [this] { return running_ == 0; })) {
                lock.unlock();
                progress.update(counters_.bytes_read, plan_.bytes);
                lock.lock();
            }
        }
        for (std::thread& worker : workers) worker.join();
        if (error_) return std::move(*error_);
        return std::move(out_);
    }

  private:
    void work() {
        set_thread_name("coral-add");
        for (std::size_t i; (i = next_++) < plan_.items.size() && !counters_.cancel;) {
            auto request = one(plan_.items[i]);
            if (request) {
                out_.requests[i] = std::move(*request);  // each index has one writer
                continue;
            }
            std::lock_guard lock(mutex_);
            if (!error_) error_ = std::move(request).error();
            counters_.cancel = true;
        }
        std::lock_guard lock(mutex_);
        if (--running_ == 0) done_.notify_all();
    }

    Result<control::PlaceRequest> one(const ImportItem& item) {
        control::PlaceRequest request;
        request.path = item.target;
        request.mode = item.stat.mode & 0777;
        request.mtime_ns = item.stat.mtime_ns;
        request.link = item.link;
        request.directory = item.kind == ImportItem::Kind::kDirectory;
        if (item.kind != ImportItem::Kind::kFile) return request;
        CORAL_TRY(auto opened, real_os().open(item.source, OpenMode::kRead));
        std::shared_ptr<File> file = std::move(opened);
        CORAL_TRY(FileStat before, file->stat());
        if (!same_file(before, item.stat)) return changed(item.source);
        CORAL_TRY(store::Session session, repository_.store().session());
        auto done = ingestor_.ingest(repo::FileSource(file, before.size), bases_, &counters_);
        if (!done) {
            if (done.error().code == Errc::kConflict) return changed(item.source);
            return std::move(done).error().with(quote_name(item.source));
        }
        CORAL_TRY(FileStat after, file->stat());
        if (!same_file(before, after)) return changed(item.source);
        request.file = done->file;
        request.size = done->size;
        auto pin = repository_.pin(done->file);
        std::lock_guard lock(mutex_);
        out_.pins.push_back(std::move(pin));
        out_.stored_bytes += done->stored_bytes;
        return request;
    }

    repo::Repository& repository_;
    const ImportPlan& plan_;
    repo::BaseMap& bases_;
    repo::Ingestor ingestor_;
    repo::IngestProgress counters_;  // shared by all files: only sums are shown
    std::atomic<std::size_t> next_{0};
    std::mutex mutex_;  // guards running_, error_, out_.stored_bytes
    std::condition_variable done_;
    std::size_t running_ = 0;
    std::optional<Error> error_;
    Imported out_;
};

}  // namespace

Result<Imported> store_files(Context& context, const ImportPlan& plan, repo::BaseMap& bases, Progress& progress) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    CORAL_TRY(Imported imported, Importer(*repository, context.pool(), plan, bases).run(progress));
    CORAL_CHECK(repository->store().sync());
    return imported;
}

}  // namespace coral::cli
