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

void StagedFile::set_overlay(Overlay overlay, const std::vector<std::uint64_t>& units) {
    overlay_ = std::move(overlay);
    overlaid_ = true;
    units_.assign((std::min(overlay_.limit, overlay_.record->size) + kUnit - 1) / kUnit, Unit::kBase);
    for (std::uint64_t unit : units) {
        if (unit < units_.size()) units_[unit] = Unit::kHere;
    }
}

std::uint64_t StagedFile::overlaid_bytes() const {
    return std::min(overlay_.limit, overlay_.record->size);
}

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
    std::uint64_t unit = offset / kUnit, limit = 0;
    bool from_base = false;
    {
        std::lock_guard lock(units_mutex_);
        from_base = unit < units_.size() && units_[unit] != Unit::kHere;
        limit = overlaid_bytes();
    }
    if (from_base) return read_base(offset, out, limit);
    CORAL_TRY(auto opened, file());
    CORAL_TRY(std::size_t got, opened->read_at(offset, out));
    std::memset(out.data() + got, 0, out.size() - got);
    return {};
}

Status StagedFile::read_base(std::uint64_t offset, MutableBytes out, std::uint64_t limit) {
    std::size_t from_base =
        offset < limit ? static_cast<std::size_t>(std::min<std::uint64_t>(out.size(), limit - offset)) : 0;
    if (from_base > 0) {
        CORAL_TRY(std::size_t got, overlay_.store->read_file(*overlay_.record, offset, out.first(from_base)));
        if (got != from_base) return make_error(Errc::kCorrupt, "a stored file is shorter than its record says");
    }
    std::memset(out.data() + from_base, 0, out.size() - from_base);
    return {};
}

Status StagedFile::write(std::uint64_t offset, Bytes data) {
    if (data.empty()) return {};
    if (overlaid_) {
        std::vector<std::uint64_t> units = claim_units(offset, data.size());
        if (!units.empty()) {
            Status filled;
            for (std::uint64_t unit : units) {
                filled = fill_unit(unit, offset, data);
                if (!filled) break;
            }
            if (filled) filled = overlay_.enter_units(units);
            settle_units(units, filled ? Unit::kHere : Unit::kBase);
            CORAL_CHECK(filled);
        }
    }
    CORAL_TRY(auto opened, file());
    CORAL_CHECK(opened->write_at(offset, data));
    grow_to(offset + data.size());
    return {};
}

std::vector<std::uint64_t> StagedFile::claim_units(std::uint64_t offset, std::uint64_t length) {
    std::vector<std::uint64_t> mine;
    std::unique_lock lock(units_mutex_);
    std::uint64_t first = offset / kUnit;
    std::uint64_t last = std::min<std::uint64_t>((offset + length - 1) / kUnit + 1, units_.size());
    auto filling = [&] {
        for (std::uint64_t unit = first; unit < last; ++unit) {
            if (units_[unit] == Unit::kFilling) return true;
        }
        return false;
    };
    // All or nothing, so that two writes never hold a part each and wait for the other's.
    units_settled_.wait(lock, [&] { return !filling(); });
    last = std::min<std::uint64_t>(last, units_.size());
    for (std::uint64_t unit = first; unit < last; ++unit) {
        if (units_[unit] != Unit::kBase) continue;
        units_[unit] = Unit::kFilling;
        mine.push_back(unit);
    }
    return mine;
}

// A unit must be whole in the staging file before its row says so: from the base, or from the write if that covers it.
Status StagedFile::fill_unit(std::uint64_t unit, std::uint64_t offset, Bytes data) {
    std::uint64_t begin = unit * kUnit, limit = 0;
    {
        std::lock_guard lock(units_mutex_);
        limit = overlaid_bytes();
    }
    if (begin >= limit) return {};
    CORAL_TRY(auto opened, file());
    std::uint64_t end = std::min(begin + kUnit, limit);
    if (offset <= begin && end <= offset + data.size()) {
        return opened->write_at(
            begin, data.subspan(static_cast<std::size_t>(begin - offset), static_cast<std::size_t>(end - begin)));
    }
    std::vector<std::byte> buffer(static_cast<std::size_t>(end - begin));
    CORAL_CHECK(read_base(begin, buffer, limit));
    return opened->write_at(begin, buffer);
}

void StagedFile::settle_units(const std::vector<std::uint64_t>& units, Unit state) {
    {
        std::lock_guard lock(units_mutex_);
        for (std::uint64_t unit : units) {
            if (unit < units_.size()) units_[unit] = state;
        }
    }
    units_settled_.notify_all();
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
    }
    CORAL_TRY(auto opened, file());
    CORAL_CHECK(opened->truncate(size));
    size_.store(size);
    return {};
}

}  // namespace coral::repo
