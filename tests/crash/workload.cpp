// SPDX-License-Identifier: Apache-2.0
#include "crash/workload.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>

#include "coral/base/bytes.hpp"

namespace coral::test {

using repo::CommitOptions;
using repo::InodePtr;
using repo::Repository;
using repo::Worktree;

repo::RepositoryOptions small_options() {
    repo::RepositoryOptions options;
    options.store.cache_bytes = 8u << 20;
    options.store.pack_bytes = 900u << 10;
    return options;
}

std::string noise(std::size_t size, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::string out(size, '\0');
    for (std::size_t at = 0; at < size; at += 8) {
        std::uint64_t word = random();
        std::memcpy(out.data() + at, &word, std::min<std::size_t>(8, size - at));
    }
    return out;
}

namespace {

// Two F32 tensors and their header: so that the layout, segments and bases are part of the run.
std::string safetensors(std::uint64_t seed) {
    std::string header =
        R"({"w":{"dtype":"F32","shape":[256,256],"data_offsets":[0,262144]},"b":{"dtype":"F32","shape":[256],"data_offsets":[262144,263168]}})";
    while (header.size() % 8 != 0) header += ' ';
    std::string length(8, '\0');
    store_le<std::uint64_t>(reinterpret_cast<std::byte*>(length.data()), header.size());
    return length + header + noise(262'144, 77) + noise(1024, seed);  // the big tensor stays the same: dedup
}

constexpr auto kReapTime = std::chrono::milliseconds(20);

}  // namespace

Workload::Workload(RecordingOs& os, std::string dir) : os_(os), dir_(std::move(dir)) {}
Workload::~Workload() {
    close();
}

void Workload::close() {
    tree_.reset();
    repo_.reset();
}

bool Workload::step(std::string_view what, const std::function<Status()>& body) {
    for (int attempt = 0; attempt < 2; ++attempt) {
        os_.mark(fmt::format("{}{}", attempt ? "again: " : "", what));
        Status done = body();
        if (done) return true;
        facts_.errors.push_back(fmt::format("{}: {}", what, done.error().message));
    }
    return false;
}

Version& Workload::begin(const std::string& path, std::optional<std::string> content) {
    Version version;
    version.content = std::move(content);
    version.begun = os_.position();
    version.failed = true;  // until it has succeeded
    auto& history = facts_.files[path];
    history.push_back(std::move(version));
    return history.back();
}

const Version* Workload::current(const std::string& path) const {
    auto found = facts_.files.find(path);
    return found == facts_.files.end() ? nullptr : &found->second.back();
}

Result<InodePtr> Workload::parent_of(const std::string& path) {
    std::size_t slash = path.rfind('/');
    return tree_->lookup_path(slash == std::string::npos ? "" : path.substr(0, slash));
}

Status Workload::open() {
    close();
    auto made = Repository::init(os_, dir_, small_options());
    if (!made && made.error().code == Errc::kExists) made = Repository::open(os_, dir_, small_options());
    if (!made) return std::move(made).error();
    repo_ = *std::move(made);
    facts_.initialised = std::min(facts_.initialised, os_.position());
    CORAL_TRY(tree_, Worktree::open(*repo_, "main", pool_));
    return {};
}

Status Workload::write_all(const std::string& path, std::string_view content, std::size_t offset, bool replace,
                           Sync sync) {
    CORAL_TRY(InodePtr dir, parent_of(path));
    auto found = tree_->lookup(dir, path_name(path));
    bool fresh = !found && found.error().code == Errc::kNotFound;
    if (fresh) found = tree_->create_file(dir, path_name(path), 0644, 0, 0);
    if (!found) return std::move(found).error();
    InodePtr inode = *found;
    CORAL_CHECK(tree_->open_file(inode, true, replace && !fresh));
    auto write = [&]() -> Status {
        constexpr std::size_t kPiece = 150'000;  // no multiple of a sector, a page or a unit
        for (std::size_t at = 0; at < content.size(); at += kPiece) {
            CORAL_CHECK(tree_->write(inode, offset + at, as_bytes(content.substr(at, kPiece))));
        }
        if (sync == Sync::kFile) CORAL_CHECK(tree_->sync_file(inode));
        return tree_->flush(inode, true);
    };
    Status done = write();
    tree_->close_file(inode, true);
    return done;
}

bool Workload::save(const std::string& path, const std::string& content, Sync sync) {
    return step("save " + path, [&]() -> Status {
        Version& version = begin(path, content);
        CORAL_CHECK(write_all(path, content, 0, true, sync));
        version.failed = false;
        version.done = os_.position();
        if (sync == Sync::kFile) version.durable = version.done;
        return {};
    });
}

bool Workload::overwrite(const std::string& path, std::size_t offset, const std::string& data, Sync sync) {
    std::string content = current(path)->content.value();
    content.replace(offset, data.size(), data);
    return step("overwrite in " + path, [&]() -> Status {
        Version& version = begin(path, content);
        version.in_place = true;
        CORAL_CHECK(write_all(path, data, offset, false, sync));
        version.failed = false;
        version.done = os_.position();
        if (sync == Sync::kFile) version.durable = version.done;
        return {};
    });
}

bool Workload::link_and_patch(const std::string& from, const std::string& to) {
    constexpr std::size_t kUnit = Worktree::kLinkUnit;
    const std::string source = current(from)->content.value();
    std::string content = std::string(kUnit, '\0') + source;
    const auto finish = [&](bool durable) {
        Version& version = facts_.files.at(to).back();
        version.failed = false;
        version.done = os_.position();
        if (durable) version.durable = version.done;
    };
    return step("link " + from + " into " + to, [&]() -> Status {
        content.replace(0, 4, "head");
        begin(to, content);
        CORAL_TRY(InodePtr dir, parent_of(to));
        CORAL_TRY(InodePtr linked, tree_->lookup_path(from));
        auto id = tree_->content_id(linked);
        if (!id) return make_error(Errc::kInvalid, from + " is not stored yet");
        auto inode = tree_->lookup(dir, path_name(to));
        if (!inode) inode = tree_->create_file(dir, path_name(to), 0644, 0, 0);
        if (!inode) return std::move(inode).error();
        CORAL_CHECK(tree_->open_file(*inode, true, true));
        auto change = [&]() -> Status {
            CORAL_CHECK(tree_->write(*inode, 0, as_bytes(std::string_view("head"))));
            CORAL_TRY(auto range, tree_->link_content(*inode, kUnit, source.size(), *id, 0));
            if (range.length != source.size()) return make_error(Errc::kInvalid, from + " was not linked");
            CORAL_CHECK(tree_->sync_file(*inode));
            finish(true);
            const std::string patch = noise(3'000, 9);
            content.replace(2 * kUnit + 1'000, patch.size(), patch);
            begin(to, content).in_place = true;
            CORAL_CHECK(tree_->write(*inode, 2 * kUnit + 1'000, as_bytes(patch)));
            CORAL_CHECK(tree_->sync_names());  // of all that is in state.db, too
            return tree_->flush(*inode, true);
        };
        Status done = change();
        tree_->close_file(*inode, true);
        if (done) finish(false);
        return done;
    });
}

bool Workload::rename(const std::string& from, const std::string& to, const std::function<Status()>& after) {
    std::string content = current(from)->content.value();
    if (current(from)->durable != kNever) facts_.renames.push_back({from, to, content, os_.position()});
    return step("rename " + from + " to " + to, [&]() -> Status {
        begin(to, content);
        begin(from, std::nullopt);
        CORAL_TRY(InodePtr source, parent_of(from));
        CORAL_TRY(InodePtr target, parent_of(to));
        auto renamed = tree_->rename(source, path_name(from), target, path_name(to), repo::RenameMode::kReplace);
        // Tried again after a failure that came too late: the first attempt did it.
        if (!renamed && renamed.error().code != Errc::kNotFound) return std::move(renamed).error();
        if (after) CORAL_CHECK(after());
        for (const std::string& path : {from, to}) {
            facts_.files[path].back().failed = false;
            facts_.files[path].back().done = os_.position();
        }
        return {};
    });
}

bool Workload::remove(const std::string& path) {
    return step("remove " + path, [&]() -> Status {
        Version& version = begin(path, std::nullopt);
        CORAL_TRY(InodePtr dir, parent_of(path));
        auto removed = tree_->unlink(dir, path_name(path));
        if (!removed && removed.error().code != Errc::kNotFound) return std::move(removed).error();
        version.failed = false;
        version.done = os_.position();
        return {};
    });
}

bool Workload::make_directory(const std::string& path) {
    return step("mkdir " + path, [&]() -> Status {
        CORAL_TRY(InodePtr dir, parent_of(path));
        auto made = tree_->make_directory(dir, path_name(path), 0755, 0, 0);
        if (!made && made.error().code != Errc::kExists) return std::move(made).error();
        return {};
    });
}

bool Workload::sync_names() {
    return step("sync names", [&]() -> Status {
        CORAL_CHECK(tree_->sync_names());
        for (auto& [path, history] : facts_.files) {
            Version& now = history.back();
            // A name is gone, or there; of what was written under it nothing is said.
            if ((!now.content || now.content->empty()) && now.done != kNever)
                now.durable = std::min(now.durable, os_.position());
        }
        // A new name for bytes that are durable is durable with them.
        for (const Rename& rename : facts_.renames) {
            Version& now = facts_.files[rename.to].back();
            if (now.content == rename.content && now.done != kNever)
                now.durable = std::min(now.durable, os_.position());
        }
        return {};
    });
}

bool Workload::commit(const std::string& message) {
    return step("commit " + message, [&]() -> Status {
        CommitFact fact;
        fact.begun = os_.position();
        for (const auto& [path, history] : facts_.files) {
            if (history.back().failed) fact.unknown.insert(path);
            if (history.back().content) fact.files[path] = *history.back().content;
        }
        facts_.commits.push_back(fact);
        CommitFact& now = facts_.commits.back();
        CommitOptions options;
        options.message = message;
        options.author = repo::Person{"A", "a@b", 1'700'000'000'000'000'000, 0};
        auto made = tree_->commit(options);
        if (made) {
            now.id = made->id;
        } else if (made.error().code == Errc::kConflict && facts_.commits.size() > 1) {
            now.id = tree_->base_commit();  // the first attempt made it and told of a failure that came later
            if (!now.id) return std::move(made).error();
        } else {
            return std::move(made).error();
        }
        now.done = os_.position();
        for (auto& [path, history] : facts_.files) {
            if (history.back().done != kNever) history.back().durable = std::min(history.back().durable, now.done);
        }
        std::this_thread::sleep_for(kReapTime);  // staging files go now
        return {};
    });
}

bool Workload::restore_first(const std::string& path) {
    const CommitFact& fact =
        *std::find_if(facts_.commits.begin(), facts_.commits.end(), [](const auto& c) { return c.id; });
    return step("restore " + path, [&]() -> Status {
        Version& version = begin(path, fact.files.at(path));
        CORAL_TRY(auto object, repo_->commit(*fact.id));
        CORAL_CHECK(tree_->restore(object->tree, {path}));
        version.failed = false;
        version.done = os_.position();
        return {};
    });
}

bool Workload::make_ref(const std::string& name) {
    return step("ref " + name, [&]() -> Status {
        RefFact fact{name, *facts_.commits.back().id, os_.position(), kNever};
        facts_.refs.push_back(fact);
        Status made;
        if (name.starts_with("heads/")) {
            made = repo_->create_branch(name.substr(6), fact.target, "branch: created");
        } else {
            made = repo_->update_refs({{name, AnyId{}, AnyId::from(fact.target), false, "tag"}});
        }
        bool was_made = !made && (made.error().code == Errc::kExists || made.error().code == Errc::kConflict);
        if (!made && !was_made) return made;
        facts_.refs.back().done = os_.position();
        return {};
    });
}

bool Workload::start() {
    return tree_ || step("open", [this] { return open(); });
}

bool Workload::first_epoch() {
    return save("a.bin", noise(600'000, 1), Sync::kNo) &&              //
           make_directory("d") &&                                      //
           save("d/b.bin", noise(10'000, 2), Sync::kFile) &&           //
           save("m.safetensors", safetensors(1), Sync::kNo) &&         //
           step("wait", [this] { return tree_->wait_ingested(); }) &&  //
           save("note.txt", "epoch 1\n", Sync::kNo) &&                 //
           commit("epoch 1");
}

bool Workload::change_in_place() {
    return link_and_patch("a.bin", "c.bin") &&
           overwrite("a.bin", 270'000, noise(5'000, 3), Sync::kNo) &&  // an overlay: one unit of three
           overwrite("a.bin", 10, noise(300'000, 4), Sync::kFile) &&   // two units
           save("d/b.bin", noise(12'345, 5), Sync::kFile) &&           // O_TRUNC
           overwrite("d/b.bin", 1'000, noise(3'000, 6), Sync::kNo);    // into what has just been synced
}

bool Workload::second_epoch() {
    // As safetensors saves: the flush comes after the rename.
    return save("m.tmp", safetensors(2), Sync::kNo) && rename("m.tmp", "m.safetensors", {}) &&  //
           commit("epoch 2") &&                                                                 //
           make_ref("heads/exp/lr-0.1") && make_ref("tags/v1");
}

bool Workload::third_epoch() {
    return save("m.tmp", safetensors(3), Sync::kFile) && rename("m.tmp", "m.safetensors", {}) && sync_names() &&  //
           remove("note.txt") && save("lock", "", Sync::kNo) && sync_names() &&                                   //
           save("a.bin", noise(200'000, 7), Sync::kFile) &&                                                       //
           commit("epoch 3") && restore_first("a.bin") && commit("epoch 4") &&                                    //
           save("z.bin", noise(50'000, 8), Sync::kNo) && save("m.safetensors", safetensors(4), Sync::kNo);
}

bool Workload::run() {
    return start() && first_epoch() && change_in_place() && second_epoch() && third_epoch();
}

}  // namespace coral::test
