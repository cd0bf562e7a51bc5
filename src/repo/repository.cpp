// SPDX-License-Identifier: Apache-2.0
// Opening a repository, and its history objects.
#include "coral/repo/repository.hpp"

#include <fmt/format.h>

#include <charconv>

#include "coral/base/hash.hpp"
#include "coral/base/log.hpp"
#include "coral/repo/settings.hpp"
#include "repo/base_index.hpp"
#include "repo/caches.hpp"
#include "repo/format_file.hpp"
#include "repo/init.hpp"
#include "repo/pins.hpp"
#include "repo/read_only_media.hpp"
#include "repo/state.hpp"

namespace coral::repo {
namespace {

constexpr std::uint64_t kFormatLimit = 64u << 10;

Error not_a_repository(const std::string& path) {
    return make_error(Errc::kNotFound,
                      fmt::format("{}: not a CoralFS repository (no FORMAT file); make one with `coral init`", path));
}

std::size_t cost(const Tree& tree) {
    std::size_t bytes = sizeof tree + 64;
    for (const TreeEntry& e : tree.entries) {
        bytes += sizeof e;
        // Short strings lie within the entry.
        if (e.name.capacity() > 15) bytes += e.name.capacity() + 1;
        if (e.link.capacity() > 15) bytes += e.link.capacity() + 1;
    }
    return bytes;
}

std::size_t cost(const Commit& c) {
    std::size_t bytes = sizeof c + c.parents.size() * sizeof(CommitId) + c.message.size() + c.signature.size() + 128;
    for (const auto& [key, value] : c.meta) bytes += key.size() + value.size() + 64;
    return bytes;
}

std::size_t cost(const Tag& t) {
    return sizeof t + t.message.size() + t.name.size() + 64;
}

std::size_t cost(const Xattrs& xattrs) {
    std::size_t bytes = sizeof xattrs + 64;
    for (const auto& [name, value] : xattrs) bytes += name.size() + value.size() + 128;
    return bytes;
}

Error read_only_error(const std::string& dir) {
    return make_error(Errc::kReadOnly, fmt::format("{}: the repository is open read-only", dir));
}

// What the caller left at its default may be set in coral.toml. A file that does not parse must not lock anybody out.
void apply_settings(Os& os, const std::string& dir, store::StoreOptions& options) {
    auto settings = merged_settings(os, dir);
    if (!settings) {
        log_warn("{}", settings.error().message);
        return;
    }
    const store::StoreOptions standard;
    struct Range {
        std::uint64_t least, most, unit;
        const char* what;
    };
    auto apply = [&](std::string_view key, std::uint64_t& option, std::uint64_t otherwise, const Range& range) {
        auto text = find_setting(*settings, key);
        if (!text || option != otherwise) return;
        std::uint64_t number = 0;
        auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), number);
        bool good =
            error == std::errc() && end == text->data() + text->size() && number >= range.least && number <= range.most;
        if (good)
            option = number * range.unit;
        else
            log_warn("{}: {} = '{}' is not {}; ignored", repo_config_path(dir), key, *text, range.what);
    };
    const Range mib{1, 1u << 24, 1u << 20, "a number of MiB"}, depth{0, codec::kMaxDepth, 1, "a depth from 0 to 7"};
    apply("store.cache_mib", options.cache_bytes, standard.cache_bytes, mib);
    apply("store.pack_mib", options.pack_bytes, standard.pack_bytes, mib);
    apply("store.max_depth", options.max_depth, standard.max_depth, depth);
}

// From the cache, else read, decode and remember.
template <class Cache, class Id, class Decode>
auto load(Cache& cache, store::Store& store, store::Kind kind, const Id& id, Decode decode)
    -> Result<decltype(cache.get(id))> {
    if (auto found = cache.get(id)) return found;
    CORAL_TRY(Buffer raw, store.object(kind, AnyId::from(id)));  // an error names kind and id
    auto value = decode(raw);
    if (!value) return std::move(value).error().with(id.hex());
    using Value = std::decay_t<decltype(*value)>;
    auto shared = std::make_shared<const Value>(std::move(*value));
    cache.put(id, shared, cost(*shared));
    return shared;
}

}  // namespace

Repository::Repository(Os& os, std::string dir, bool read_only)
    : os_(os),
      dir_(std::move(dir)),
      read_only_(read_only),
      caches_(std::make_unique<Caches>()),
      pins_(std::make_shared<Pins>(os_, path_join(dir_, "run"))) {}
Repository::~Repository() = default;

Result<std::unique_ptr<Repository>> Repository::open(Os& os, const std::string& dir, const RepositoryOptions& options) {
    CORAL_TRY(std::string absolute, absolute_path(dir));
    std::string format_path = path_join(absolute, kFormatName);
    auto text = read_file(os, format_path, kFormatLimit);
    if (!text) {
        bool none = text.error().code == Errc::kNotFound || text.error().code == Errc::kNotDirectory;
        return none ? not_a_repository(absolute) : std::move(text).error();
    }
    bool read_only = options.read_only;
    CORAL_TRY(FormatFile format, parse_format(*text, format_path, read_only));
    if (read_only && !options.read_only) {
        log_warn("{}: has features that this version of CoralFS does not know; opened read-only", absolute);
    }
    bool unwritable = is_on_read_only_media(os, absolute);
    if (unwritable && !read_only) {
        log_info("{}: cannot be written to; opened read-only", absolute);
        read_only = true;
    }
    auto repo = std::unique_ptr<Repository>(new Repository(os, absolute, read_only));
    repo->uuid_ = format.repo;
    if (!read_only) forget_init(os, absolute);
    store::StoreOptions store_options = options.store;
    store_options.read_only = read_only;
    if (unwritable && store_options.index_path.empty()) {
        // Without a cache the index is kept in memory.
        if (auto index = index_in_cache(os, absolute)) store_options.index_path = *index;
    }
    apply_settings(os, absolute, store_options);
    CORAL_TRY(repo->state_, State::open(os, path_join(absolute, "state.db"), read_only, false));
    CORAL_TRY(repo->store_, store::Store::open(os, absolute, format.repo, store_options));
    repo->base_index_ = std::make_unique<BaseIndex>(os, path_join(absolute, "bases.db"), read_only);
    return repo;
}

Result<std::string> Repository::discover(Os& os, const std::string& path) {
    CORAL_TRY(std::string at, absolute_path(path));
    // Each step shortens the path, so this ends.
    while (true) {
        auto text = read_file(os, path_join(at, kFormatName), kFormatLimit);
        if (text && text->starts_with("coral ")) return at;
        if (at == "/" || at.empty()) break;
        at = path_parent(at);
    }
    return make_error(Errc::kNotFound,
                      fmt::format("{}: neither this nor a directory above it is a CoralFS repository; make one "
                                  "with `coral init`, or name one with -C DIR",
                                  path));
}

Result<std::shared_ptr<const Tree>> Repository::tree(const TreeId& id) {
    return load(caches_->trees, *store_, store::Kind::kTree, id, [](Bytes b) { return decode_tree(b); });
}

Result<std::shared_ptr<const Commit>> Repository::commit(const CommitId& id) {
    return load(caches_->commits, *store_, store::Kind::kCommit, id, [](Bytes b) { return decode_commit(b); });
}

Result<std::shared_ptr<const Tag>> Repository::tag(const TagId& id) {
    return load(caches_->tags, *store_, store::Kind::kTag, id, [](Bytes b) { return decode_tag(b); });
}

Result<TreeId> Repository::put_tree(const Tree& tree) {
    if (read_only_) return read_only_error(dir_);
    CORAL_CHECK(check_tree(tree));
    Buffer raw = encode_tree(tree);
    AnyId id = store::object_id(store::Kind::kTree, raw);
    CORAL_CHECK(store_->put_object(store::Kind::kTree, id, raw));
    caches_->trees.put(TreeId::from(id), std::make_shared<const Tree>(tree), cost(tree));
    return TreeId::from(id);
}

Result<CommitId> Repository::put_commit(const Commit& commit) {
    if (read_only_) return read_only_error(dir_);
    CORAL_CHECK(check_commit(commit));
    Buffer raw = encode_commit(commit);
    AnyId id = store::object_id(store::Kind::kCommit, raw);
    CORAL_CHECK(store_->put_object(store::Kind::kCommit, id, raw));
    return CommitId::from(id);
}

Result<TagId> Repository::put_tag(const Tag& tag) {
    if (read_only_) return read_only_error(dir_);
    CORAL_CHECK(check_tag(tag));
    Buffer raw = encode_tag(tag);
    AnyId id = store::object_id(store::Kind::kTag, raw);
    CORAL_CHECK(store_->put_object(store::Kind::kTag, id, raw));
    return TagId::from(id);
}

Result<Xattrs> Repository::xattrs(const SegmentId& id) {
    if (id.is_zero()) return Xattrs{};
    if (auto found = caches_->xattrs.get(id)) return *found;
    CORAL_TRY(Buffer raw, store_->read_segment(id));
    auto pairs = decode_xattrs(raw);
    if (!pairs) return std::move(pairs).error().with(fmt::format("segment {}", id.hex()));
    caches_->xattrs.put(id, std::make_shared<const Xattrs>(*pairs), cost(*pairs));
    return pairs;
}

Result<SegmentId> Repository::put_xattrs(const Xattrs& xattrs) {
    if (xattrs.empty()) return SegmentId{};
    if (read_only_) return read_only_error(dir_);
    CORAL_CHECK(check_xattrs(xattrs));
    Buffer raw = encode_xattrs(xattrs);
    auto id = SegmentId::from(Sha256::of(raw));
    CORAL_CHECK(store_->put_segment(id, raw, codec::Hint{}, {}));
    return id;
}

Result<TreeEntry> Repository::entry_at(const TreeId& root, std::string_view path) {
    TreeEntry entry;
    entry.type = EntryType::kDirectory;
    entry.mode = 0755;
    entry.content = AnyId::from(root);
    auto missing = [&] {
        return make_error(Errc::kNotFound, fmt::format("{}: not in tree {}", path, root.hex().substr(0, 12)));
    };
    for (std::string_view rest = path; !rest.empty();) {
        std::string_view name = rest.substr(0, rest.find('/'));
        rest.remove_prefix(std::min(rest.size(), name.size() + 1));
        if (name.empty()) continue;
        if (entry.type != EntryType::kDirectory) return missing();
        CORAL_TRY(std::shared_ptr<const Tree> tree, this->tree(TreeId::from(entry.content)));
        const TreeEntry* found = tree->find(name);
        if (!found) return missing();
        entry = TreeEntry(*found);
    }
    return entry;
}

}  // namespace coral::repo
