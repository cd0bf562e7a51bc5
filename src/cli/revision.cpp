// SPDX-License-Identifier: Apache-2.0
#include "cli/revision.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "cli/text.hpp"

namespace coral::cli {

Result<Target> parse_target(Context& context, const std::string& text) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    Target target;
    target.shown = quote_name(text);
    std::size_t colon = text.find(':');
    target.has_path = colon != std::string::npos;
    std::string revision = text.substr(0, colon);
    if (revision.empty() && target.has_path) {
        CORAL_TRY(target.commit, context.default_commit());
    } else {
        CORAL_TRY(target.commit, repository->resolve(revision));
    }
    CORAL_TRY(target.object, repository->commit(target.commit));
    if (!target.has_path) return target;
    std::string path = text.substr(colon + 1);
    if (path == "." || path.starts_with("./") || path.starts_with("../") || path == "..") {
        CORAL_TRY(const Place* place, context.place());
        path = place->path + "/" + path;  // as in git, relative only when it says so
    }
    CORAL_TRY(target.path, normal_path(path));
    return target;
}

Result<Target> default_target(Context& context) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    Target target;
    CORAL_TRY(target.commit, context.default_commit());
    CORAL_TRY(target.object, repository->commit(target.commit));
    target.shown = target.commit.hex().substr(0, 12);
    return target;
}

Result<repo::TreeEntry> target_entry(Context& context, const Target& target) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    auto entry = repository->entry_at(target.object->tree, target.path);
    if (!entry && entry.error().code == Errc::kNotFound) {
        return make_error(Errc::kNotFound, fmt::format("{}: there is no '{}' in commit {}", target.shown,
                                                       quote_name(target.path), target.commit.hex().substr(0, 12)));
    }
    return entry;
}

Result<std::shared_ptr<const store::FileRecord>> target_file(Context& context, const Target& target) {
    CORAL_TRY(repo::Repository * repository, context.repository());
    CORAL_TRY(repo::TreeEntry entry, target_entry(context, target));
    if (entry.type == repo::EntryType::kDirectory) {
        return make_error(Errc::kInvalid, fmt::format("{}: is a directory; name a file in it (`coral ls {}`)",
                                                      target.shown, target.shown));
    }
    if (entry.type == repo::EntryType::kSymlink) {
        return make_error(Errc::kInvalid,
                          fmt::format("{}: is a symlink to {}; name that", target.shown, quote_name(entry.link)));
    }
    auto record = repository->store().file(FileId::from(entry.content));
    if (!record && record.error().code == Errc::kNotFound) {
        return make_error(Errc::kCorrupt,
                          fmt::format("{}: its content {} is missing from the store; `coral fsck` tells more",
                                      target.shown, entry.content.hex()));
    }
    return record;
}

std::string short_id(repo::Repository& repository, const CommitId& id, std::size_t least) {
    std::string hex = id.hex();
    for (std::size_t digits = std::clamp<std::size_t>(least, 4, hex.size()); digits < hex.size(); ++digits) {
        auto found = repository.store().find_prefix(store::Kind::kCommit, hex.substr(0, digits), 2);
        if (!found || found->size() < 2) return hex.substr(0, digits);
    }
    return hex;
}

Result<CommitId> peel(repo::Repository& repository, const repo::Ref& ref) {
    if (!ref.annotated) return CommitId::from(ref.target);
    CORAL_TRY(auto tag, repository.tag(TagId::from(ref.target)));
    return tag->target;
}

Result<Decorations> decorations(repo::Repository& repository) {
    Decorations out;
    CORAL_TRY(repo::Head head, repository.head());
    CORAL_TRY(auto refs, repository.refs(""));
    if (head.branch.empty() && head.commit) out[*head.commit].push_back("HEAD");
    for (const repo::Ref& ref : refs) {
        auto commit = peel(repository, ref);
        if (!commit) continue;  // fsck's business
        std::string name = ref.name.substr(ref.name.find('/') + 1);
        std::vector<std::string>& names = out[*commit];
        if (ref.name.starts_with("tags/"))
            names.push_back("tag: " + name);
        else if (name == head.branch)
            names.insert(names.begin(), "HEAD -> " + name);
        else
            names.push_back(name);
    }
    return out;
}

}  // namespace coral::cli
