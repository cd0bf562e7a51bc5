// SPDX-License-Identifier: Apache-2.0
// The part of `coral repack` that adds better records to the store.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "coral/base/thread_pool.hpp"
#include "coral/repo/ingest.hpp"
#include "coral/repo/repository.hpp"
#include "repo/base_index.hpp"
#include "repo/tensor_bases.hpp"

namespace coral::repo {

class Repacker {
  public:
    Repacker(Repository& repo, ThreadPool& pool, const RepackOptions& options, RepackReport& report);
    Status run(std::int64_t reflog_from);

  private:
    struct File {
        FileId id;
        std::uint64_t size = 0;
    };
    struct Work {
        SegmentId id;
        codec::Hint hint;
        NamedBases named;
    };
    Status list_files();
    Status list_tree(const TreeId& root);
    void add_file(const FileId& id, std::uint64_t size);
    Status improve(const FileId& id);
    Result<bool> cut_anew(const std::shared_ptr<const store::FileRecord>& record);
    Status encode_anew(const store::FileRecord& record);
    Result<store::Rewrite> encode_anew(const Work& work);
    std::vector<store::BaseCandidate> candidates_of(const Work& work, const Sketch& sketch,
                                                    const store::SegmentInfo& info);
    void note(const SegmentId& id, const Result<store::Rewrite>& result);
    bool failed();
    void advance(std::uint64_t bytes);
    bool cancelled() const { return options_.cancelled && options_.cancelled(); }

    Repository& repo_;
    store::Store& store_;
    BaseIndex& similar_;
    const RepackOptions& options_;
    RepackReport& report_;
    ThreadPool& pool_;
    Ingestor ingestor_;

    std::vector<File> files_;  // oldest first
    store::LiveSet live_, met_;
    store::LiveSet tried_;  // segments that have been looked at
    // Segments of the files before: only these become bases. So nothing that is dead is kept for being one, and old
    // files do not come to depend on new ones. Does not change while tasks run.
    store::LiveSet seen_;
    store::RewriteLimits limits_;
    BaseMap bases_;
    std::uint64_t done_ = 0, total_ = 0;

    std::mutex mutex_;  // guards error_, and report_ while tasks run; a leaf
    std::optional<Error> error_;
};

}  // namespace coral::repo
