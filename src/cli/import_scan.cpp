// SPDX-License-Identifier: Apache-2.0
#include "cli/import_scan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "cli/system.hpp"
#include "cli/text.hpp"
#include "coral/repo/objects.hpp"

namespace coral::cli {
namespace {

class Scanner {
  public:
    Scanner(const ScanOptions& options, Output& out) : options_(options), out_(out) {
        if (auto st = real_os().stat(options.repository)) repository_ = *st;
    }

    Status take(const std::string& source, const std::string& target) {
        CORAL_TRY(FileStat st, look(source));
        return visit(source, target, st, 0);
    }

    Result<ImportPlan> finish() {
        // Two sources of one name would silently be one file.
        std::unordered_set<std::string_view> targets;
        for (const ImportItem& item : plan_.items) {
            if (item.kind == ImportItem::Kind::kDirectory || targets.insert(item.target).second) continue;
            return make_error(Errc::kInvalid,
                              fmt::format("{}: '{}' would be written twice; add them one by one with --as",
                                          quote_name(item.source), quote_name(item.target)));
        }
        return std::move(plan_);
    }

  private:
    Result<FileStat> look(const std::string& source) {
        auto st = options_.follow_links ? real_os().stat(source) : real_os().lstat(source);
        if (st) return st;
        if (st.error().code != Errc::kNotFound) return std::move(st).error();
        if (options_.follow_links && real_os().lstat(source)) {
            return make_error(
                Errc::kNotFound,
                fmt::format("{}: is a symlink to nothing; leave -L away to store the link", quote_name(source)));
        }
        // After -C DIR that is not where the shell stands: say where was looked.
        auto here = current_dir();
        std::string where = here && source[0] != '/' ? fmt::format(" in {}", quote_name(*here)) : "";
        return make_error(Errc::kNotFound, fmt::format("{}: there is no such file{}", quote_name(source), where));
    }

    Status visit(const std::string& source, const std::string& target, const FileStat& st, std::uint64_t above_device) {
        switch (st.type) {
            case FileType::kDirectory:
                return visit_directory(source, target, st, above_device);
            case FileType::kSymlink: {
                CORAL_TRY(std::string link, real_os().read_link(source));
                return add(ImportItem::Kind::kSymlink, source, target, st, std::move(link));
            }
            case FileType::kRegular:
                return add(ImportItem::Kind::kFile, source, target, st, {});
            case FileType::kOther:
                break;
        }
        return make_error(Errc::kUnsupported,
                          fmt::format("{}: is a device, socket or FIFO; only files, folders and symlinks can "
                                      "be stored; nothing was added",
                                      quote_name(source)));
    }

    Status add(ImportItem::Kind kind, const std::string& source, const std::string& target, const FileStat& st,
               std::string link) {
        if (target.empty()) {
            return make_error(Errc::kInvalid, fmt::format("{}: a file needs a name in the branch; give one with --as",
                                                          quote_name(source)));
        }
        if (kind == ImportItem::Kind::kFile) {
            ++plan_.files;
            plan_.bytes += st.size;
        }
        plan_.items.push_back({kind, source, target, std::move(link), st});
        return {};
    }

    bool is_repository(const std::string& source, const FileStat& st, std::uint64_t above_device) {
        if (repository_ && st.inode == repository_->inode && st.device == repository_->device) return true;
        if (st.device == above_device) return false;
        auto mounted = get_xattr(source, "user.coral.repository");
        bool top = mounted && *mounted && **mounted == options_.repository;
        if (!top) return false;
        // Folders of a commit or a branch may be taken by name; the root of the mount holds all of history.
        auto branch = get_xattr(source, "user.coral.branch"), commit = get_xattr(source, "user.coral.commit");
        return !(branch && *branch) && !(commit && *commit);
    }

    Status visit_directory(const std::string& source, const std::string& target, const FileStat& st,
                           std::uint64_t above_device) {
        if (is_repository(source, st, above_device)) {
            out_.warn(fmt::format("{}: left out: it is the repository itself", quote_name(source)));
            return {};
        }
        auto same = [&](const FileStat& other) { return other.inode == st.inode && other.device == st.device; };
        if (std::any_of(above_.begin(), above_.end(), same)) {
            return make_error(Errc::kLoop,
                              fmt::format("{}: a symlink leads back to a folder above it", quote_name(source)));
        }
        if (!target.empty()) CORAL_CHECK(add(ImportItem::Kind::kDirectory, source, target, st, {}));
        CORAL_TRY(std::vector<std::string> names, real_os().list_dir(source));
        above_.push_back(st);
        for (const std::string& name : names) {
            std::string below = path_join(source, name);
            CORAL_TRY(FileStat inner, look(below));
            CORAL_CHECK(visit(below, target.empty() ? name : target + "/" + name, inner, st.device));
        }
        above_.pop_back();
        return {};
    }

    const ScanOptions& options_;
    Output& out_;
    std::optional<FileStat> repository_;
    std::vector<FileStat> above_;  // the folders we are in: paths are bounded, so is the recursion
    ImportPlan plan_;
};

}  // namespace

Result<ImportPlan> scan_sources(const std::vector<std::pair<std::string, std::string>>& sources,
                                const ScanOptions& options, Output& out) {
    Scanner scanner(options, out);
    for (const auto& [source, target] : sources) CORAL_CHECK(scanner.take(source, target));
    return scanner.finish();
}

}  // namespace coral::cli
