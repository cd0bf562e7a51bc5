// SPDX-License-Identifier: Apache-2.0
#include "repo/staged_file.hpp"

#include <algorithm>
#include <cstring>

namespace coral::repo {

Result<std::shared_ptr<File>> StagingFiles::get(const Uuid& uuid, const std::string& path) {
    if (auto open = open_.get(uuid)) return open;
    CORAL_TRY(std::shared_ptr<File> file, os_.open(path, OpenMode::kReadWrite));
    put(uuid, file);
    return file;
}

void StagedFile::set_overlay(Overlay overlay, const std::vector<std::uint64_t>& units, const std::vector<Link>& links) {
    overlay_ = std::move(overlay);
    if (overlay_.record) {
        units_.assign((std::min(overlay_.limit, overlay_.record->size) + kUnit - 1) / kUnit, Unit::kUnder);
    }
    for (const Link& link : links) put_link(link);
    for (std::uint64_t unit : units) {
        if (unit < units_.size()) units_[unit] = Unit::kHere;
    }
    overlaid_ = true;
}

std::vector<FileId> StagedFile::shown() const {
    std::lock_guard lock(units_mutex_);
    std::vector<FileId> all;
    if (overlay_.record) all.push_back(overlay_.record->id);
    for (const auto& [unit, link] : links_) {
        if (std::find(all.begin(), all.end(), link.record->id) == all.end()) all.push_back(link.record->id);
    }
    return all;
}

std::vector<StagedFile::Link> StagedFile::links() const {
    std::lock_guard lock(units_mutex_);
    std::vector<Link> all;
    for (const auto& [unit, link] : links_) all.push_back(link);
    return all;
}

std::size_t StagedFile::times_linked() const {
    std::lock_guard lock(units_mutex_);
    return times_linked_;
}

// A write that has not seen the promise ends before we return, so what it wrote is there to be synced; the next ones
// see it.
void StagedFile::promise() {
    promised_ = true;
    if (overlaid_) Alone wait_for_writes(*this);
}

// ---- links

StagedFile::Alone::Alone(StagedFile& file) : file_(file) {
    std::unique_lock lock(file_.units_mutex_);
    file_.units_settled_.wait(lock, [&] { return !file_.alone_; });
    file_.alone_ = true;
    file_.units_settled_.wait(lock, [&] { return file_.writing_ == 0; });
}

StagedFile::Alone::~Alone() {
    {
        std::lock_guard lock(file_.units_mutex_);
        file_.alone_ = false;
    }
    file_.units_settled_.notify_all();
}

std::pair<std::uint64_t, std::uint64_t> StagedFile::whole_units(std::uint64_t offset, std::uint64_t length) const {
    const std::uint64_t begin = (offset + kUnit - 1) / kUnit * kUnit;
    std::uint64_t end = offset + length;
    if (end < size()) end = end / kUnit * kUnit;
    return {begin, std::max(begin, end)};
}

void StagedFile::show(const Link& link, const Overlay& overlay) {
    {
        std::lock_guard lock(units_mutex_);
        if (!overlaid_) {
            overlay_ = overlay;
            overlaid_ = true;
        }
        put_link(link);
    }
    grow_to(link.unit * kUnit + link.length);
}

void StagedFile::put_link(const Link& link) {
    ++times_linked_;
    const std::uint64_t end = link.end_unit();
    auto at = links_.upper_bound(link.unit);
    if (at != links_.begin()) --at;
    while (at != links_.end() && at->first < end) {
        const Link older = at->second;
        if (older.end_unit() <= link.unit) {
            ++at;
            continue;
        }
        at = links_.erase(at);
        if (older.unit < link.unit) {
            Link left = older;
            left.length = (link.unit - older.unit) * kUnit;
            links_.emplace(left.unit, std::move(left));
        }
        if (older.end_unit() > end) {
            const std::uint64_t cut = (end - older.unit) * kUnit;
            links_.emplace(end, Link{end, older.length - cut, older.from + cut, older.record});
        }
    }
    if (link.length == 0) return;
    links_.emplace(link.unit, link);
    if (units_.size() < end) units_.resize(end, Unit::kHere);
    std::fill(units_.begin() + static_cast<std::ptrdiff_t>(link.unit),
              units_.begin() + static_cast<std::ptrdiff_t>(end), Unit::kUnder);
}

StagedFile::Under StagedFile::under(std::uint64_t unit) const {
    const std::uint64_t begin = unit * kUnit;
    if (auto after = links_.upper_bound(unit); after != links_.begin()) {
        const Link& link = std::prev(after)->second;
        if (unit < link.end_unit()) {
            const std::uint64_t in = begin - link.unit * kUnit;
            return {overlay_.store, link.record, link.from + in, std::min(kUnit, link.length - in)};
        }
    }
    if (!overlay_.record) return {};
    const std::uint64_t limit = std::min(overlay_.limit, overlay_.record->size);
    return {overlay_.store, overlay_.record, begin, begin < limit ? std::min(kUnit, limit - begin) : 0};
}

// ---- reading

Result<std::size_t> StagedFile::read(std::uint64_t offset, MutableBytes out) {
    std::uint64_t end = size();
    if (offset >= end) return std::size_t{0};
    out = out.first(static_cast<std::size_t>(std::min<std::uint64_t>(out.size(), end - offset)));
    if (!overlaid_) {
        CORAL_TRY(auto opened, file());
        CORAL_TRY(std::size_t got, opened->read_at(offset, out));
        // Reserved by append, or being truncated by somebody else: what is not there yet reads as zeros.
        std::memset(out.data() + got, 0, out.size() - got);
        return out.size();
    }
    for (std::size_t done = 0; done < out.size();) {
        std::uint64_t at = offset + done;
        std::size_t part = static_cast<std::size_t>(std::min<std::uint64_t>(out.size() - done, kUnit - at % kUnit));
        CORAL_CHECK(read_unit_part(at, out.subspan(done, part)));
        done += part;
    }
    return out.size();
}

Status StagedFile::read_unit_part(std::uint64_t offset, MutableBytes out) {
    const std::uint64_t unit = offset / kUnit;
    std::optional<Under> shown;
    {
        std::lock_guard lock(units_mutex_);
        if (unit < units_.size() && units_[unit] != Unit::kHere) shown = under(unit);
    }
    if (shown) return read_under(*shown, offset % kUnit, out);
    CORAL_TRY(auto opened, file());
    CORAL_TRY(std::size_t got, opened->read_at(offset, out));
    std::memset(out.data() + got, 0, out.size() - got);
    return {};
}

// `offset`: from the beginning of the unit.
Status StagedFile::read_under(const Under& under, std::uint64_t offset, MutableBytes out) {
    std::size_t there = offset < under.length
                            ? static_cast<std::size_t>(std::min<std::uint64_t>(out.size(), under.length - offset))
                            : 0;
    if (there > 0) {
        CORAL_TRY(std::size_t got, under.store->read_file(*under.record, under.from + offset, out.first(there)));
        if (got != there) return make_error(Errc::kCorrupt, "a stored file is shorter than its record says");
    }
    std::memset(out.data() + there, 0, out.size() - there);
    return {};
}

// ---- writing

// Claims the units that are not here, and waits for those that another write is filling. However the write ends, nobody
// waits for it afterwards.
class StagedFile::Writing {
  public:
    Writing(StagedFile& file, std::uint64_t offset, std::uint64_t length) : file_(file) {
        std::unique_lock lock(file_.units_mutex_);
        const std::uint64_t first = offset / kUnit, end = (offset + length - 1) / kUnit + 1;
        auto last = [&] { return std::min<std::uint64_t>(end, file_.units_.size()); };
        auto free = [&] {
            if (file_.alone_) return false;
            for (std::uint64_t unit = first; unit < last(); ++unit) {
                if (file_.units_[unit] == Unit::kFilling) return false;
            }
            return true;
        };
        // All or nothing, so that two writes never hold a part each and wait for the other's.
        file_.units_settled_.wait(lock, free);
        for (std::uint64_t unit = first; unit < last(); ++unit) {
            if (file_.units_[unit] == Unit::kUnder) units_.push_back(unit);
        }
        for (std::uint64_t unit : units_) file_.units_[unit] = Unit::kFilling;
        ++file_.writing_;
    }
    ~Writing() {
        {
            std::lock_guard lock(file_.units_mutex_);
            settle_locked(Unit::kUnder);
            --file_.writing_;
        }
        file_.units_settled_.notify_all();
    }
    Writing(const Writing&) = delete;
    Writing& operator=(const Writing&) = delete;

    const std::vector<std::uint64_t>& units() const { return units_; }
    // They are all in the staging file, and their rows say so.
    void filled() {
        {
            std::lock_guard lock(file_.units_mutex_);
            settle_locked(Unit::kHere);
        }
        file_.units_settled_.notify_all();
    }

  private:
    void settle_locked(Unit state) {
        for (std::uint64_t unit : units_) {
            if (unit < file_.units_.size()) file_.units_[unit] = state;
        }
        units_.clear();
    }

    StagedFile& file_;
    std::vector<std::uint64_t> units_;
};

Status StagedFile::write(std::uint64_t offset, Bytes data) {
    if (data.empty()) return {};
    Writing writing(*this, offset, data.size());
    if (!writing.units().empty()) {
        CORAL_CHECK(fill(writing.units(), offset, data));
        writing.filled();
    }
    CORAL_TRY(auto opened, file());
    CORAL_CHECK(opened->write_at(offset, data));
    grow_to(offset + data.size());
    return {};
}

Status StagedFile::fill(const std::vector<std::uint64_t>& units, std::uint64_t offset, Bytes data) {
    for (std::uint64_t unit : units) CORAL_CHECK(fill_unit(unit, offset, data));
    if (promised_) CORAL_CHECK(sync_data());
    return overlay_.enter_units(units);
}

Status StagedFile::sync_data() {
    if (!lost_bytes_) {
        CORAL_TRY(auto opened, file());
        Status synced = opened->sync_data();
        if (!synced) lost_bytes_ = true;
        return synced;
    }
    return make_error(Errc::kIo, path_ + ": the disk did not take all that was written; write the file again");
}

void StagedFile::give_back(std::uint64_t offset, std::uint64_t length) {
    std::uint64_t end = offset + length;
    (void)size_.compare_exchange_strong(end, offset);
}

Status StagedFile::drop_excess() {
    CORAL_TRY(auto opened, file());
    CORAL_TRY(const FileStat below, opened->stat());
    return below.size > size() ? opened->truncate(size()) : Status();
}

// A unit must be whole in the staging file before its row says so: from what lies under it, or from the write if that
// covers it.
Status StagedFile::fill_unit(std::uint64_t unit, std::uint64_t offset, Bytes data) {
    Under shown;
    {
        std::lock_guard lock(units_mutex_);
        shown = under(unit);
    }
    if (shown.length == 0) return {};
    CORAL_TRY(auto opened, file());
    const std::uint64_t begin = unit * kUnit, end = begin + shown.length;
    if (offset <= begin && end <= offset + data.size()) {
        return opened->write_at(
            begin, data.subspan(static_cast<std::size_t>(begin - offset), static_cast<std::size_t>(shown.length)));
    }
    std::vector<std::byte> buffer(static_cast<std::size_t>(shown.length));
    CORAL_CHECK(read_under(shown, 0, buffer));
    return opened->write_at(begin, buffer);
}

void StagedFile::grow_to(std::uint64_t end) {
    std::uint64_t size = size_.load();
    while (size < end && !size_.compare_exchange_weak(size, end)) {
    }
}

Status StagedFile::truncate(std::uint64_t size) {
    if (overlaid_) {
        std::lock_guard lock(units_mutex_);
        overlay_.limit = std::min(overlay_.limit, size);
        while (!links_.empty() && links_.rbegin()->first * kUnit >= size) links_.erase(std::prev(links_.end()));
        if (!links_.empty()) {
            Link& last = links_.rbegin()->second;
            last.length = std::min(last.length, size - last.unit * kUnit);
        }
    }
    CORAL_TRY(auto opened, file());
    CORAL_CHECK(opened->truncate(size));
    if (size == 0) lost_bytes_ = false;
    size_.store(size);
    return {};
}

}  // namespace coral::repo
