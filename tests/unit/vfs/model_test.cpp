// SPDX-License-Identifier: Apache-2.0
// Random operations on the filesystem and on the reference model (tests/support/model_fs.hpp), compared by listing and
// by lookup. A failure prints its seed; CORAL_SEED=N repeats it, CORAL_MODEL_OPS=N makes it longer.
#include <chrono>
#include <random>
#include <set>

#include "support/model_fs.hpp"
#include "vfs_fixture.hpp"

namespace coral::test {
namespace {

class ModelTest : public VfsTest {
  protected:
    struct OpenFile {
        vfs::HandleId handle;
        ModelPtr node;
        bool writable;
    };

    std::uint64_t below(std::uint64_t n) { return random_() % n; }
    bool chance(unsigned percent) { return below(100) < percent; }

    std::string any_branch() {
        auto at = branches_.begin();
        std::advance(at, below(branches_.size()));
        return at->first;
    }
    // A small name space, so that operations meet: up to three levels of five names.
    std::string any_path() {
        std::string path;
        for (std::uint64_t depth = 1 + below(3); depth > 0; --depth) {
            path += path.empty() ? "" : "/";
            path += static_cast<char>('a' + below(5));
        }
        return path;
    }
    std::string any_data() { return noise(chance(20) ? below(700'000) : below(5'000), random_()); }
    std::uint64_t any_offset(std::size_t size) { return chance(30) ? size : below(size + 1000); }

    static std::string code_of(const Status& status) {
        return status ? "ok" : std::string(to_string(status.error().code));
    }
    template <class T>
    static Status status_of(const Result<T>& result) {
        if (result) return {};
        return result.error();
    }
    void same(const Status& real, const Status& expected, const std::string& what) {
        EXPECT_EQ(code_of(real), code_of(expected)) << what << ": " << (real ? "" : real.error().message);
    }

    void create_file() {
        std::string branch = any_branch(), path = any_path();
        log_ = "create " + branch + " " + path;
        auto expected = branches_[branch].create(path, FileType::kRegular, 0644);
        auto real = c().create("branches/" + branch + "/" + path, O_RDWR | O_EXCL);
        same(status_of(real), status_of(expected), log_);
        if (!real || !expected) return;
        std::string data = any_data();
        EXPECT_OK(c().write(real->handle, 0, data));
        ModelFs::write(**expected, 0, data);
        if (chance(30))
            open_.push_back({real->handle, *expected, true});
        else
            EXPECT_OK(c().close(real->handle));
    }
    void open_file() {
        std::string branch = any_branch(), path = any_path();
        log_ = "open " + branch + " " + path;
        bool writable = chance(60), truncate = writable && chance(30);
        int flags = (writable ? (chance(50) ? O_WRONLY : O_RDWR) : O_RDONLY) | (truncate ? O_TRUNC : 0);
        auto expected = branches_[branch].find(path);
        auto real = c().open("branches/" + branch + "/" + path, flags);
        if (!expected) return same(status_of(real), status_of(expected), log_);
        if ((*expected)->type != FileType::kRegular) {
            EXPECT_FALSE(real.ok()) << log_;
            return;
        }
        ASSERT_OK(real);
        if (truncate) ModelFs::truncate(**expected, 0);
        open_.push_back({real->handle, *expected, writable});
    }
    void use_handle() {
        if (open_.empty()) return;
        OpenFile& file = open_[below(open_.size())];
        log_ = "use handle";
        if (file.writable && chance(70)) {
            std::string data = any_data();
            std::uint64_t offset = any_offset(file.node->content.size());
            EXPECT_OK(c().write(file.handle, offset, data));
            if (!data.empty()) ModelFs::write(*file.node, offset, data);
        } else if (chance(20)) {
            EXPECT_OK(fs_->sync(file.handle));
        } else {
            auto data = c().read_all(file.handle);
            ASSERT_OK(data);
            EXPECT_TRUE(*data == file.node->content) << log_;
        }
    }
    void close_handle(std::size_t index) {
        log_ = "close";
        EXPECT_OK(c().close(open_[index].handle));
        open_.erase(open_.begin() + static_cast<std::ptrdiff_t>(index));
    }
    void truncate() {
        std::string branch = any_branch(), path = any_path();
        log_ = "truncate " + branch + " " + path;
        auto expected = branches_[branch].find(path);
        if (!expected || (*expected)->type != FileType::kRegular) return;
        repo::SetAttributes set;
        set.size = any_offset((*expected)->content.size());
        EXPECT_OK(c().set("branches/" + branch + "/" + path, set));
        ModelFs::truncate(**expected, *set.size);
    }
    void change_attributes() {
        std::string branch = any_branch(), path = any_path();
        log_ = "attributes " + branch + " " + path;
        auto expected = branches_[branch].find(path);
        if (!expected || (*expected)->type == FileType::kSymlink) return;
        std::string full = "branches/" + branch + "/" + path;
        repo::SetAttributes set;
        if (chance(50)) {
            set.mode = (*expected)->mode = static_cast<std::uint32_t>(0400 | below(01000));
        } else {
            set.mtime_ns = (*expected)->mtime_ns = static_cast<std::int64_t>(1 + below(1'800'000'000)) * 1'000'000'007;
            // Creating something in it or writing to it changes the time again; only that of files at rest is compared.
            if ((*expected)->is_directory() || is_open(*expected)) (*expected)->mtime_ns = 0;
        }
        EXPECT_OK(c().set(full, set));
        if (chance(30)) {
            auto at = c().walk(full);
            ASSERT_OK(at);
            std::string value = noise(below(50), random_());
            EXPECT_OK(fs_->set_xattr(at->id(), "user.x", value, repo::Worktree::XattrMode::kAny));
            (*expected)->xattrs["user.x"] = value;
        }
    }
    void change_names() {
        std::string branch = any_branch(), path = any_path(), full = "branches/" + branch + "/" + path;
        ModelFs& model = branches_[branch];
        switch (below(5)) {
            case 0:
                log_ = "unlink " + full;
                return same(c().unlink(full), model.remove(path, false), log_);
            case 1:
                log_ = "rmdir " + full;
                return same(c().remove_dir(full), model.remove(path, true), log_);
            case 2:
                log_ = "mkdir " + full;
                return same(c().make_dir(full), status_of(model.create(path, FileType::kDirectory, 0755)), log_);
            case 3: {
                log_ = "symlink " + full;
                std::string target = "../" + any_path();
                return same(c().make_link(full, target),
                            status_of(model.create(path, FileType::kSymlink, 0777, target)), log_);
            }
            default: {
                auto mode = static_cast<repo::RenameMode>(below(3));
                std::string to = any_path();
                log_ = "rename " + full + " " + to;
                Status real = c().rename(full, "branches/" + branch + "/" + to, mode);
                Status expected = model.rename(path, to, mode);
                EXPECT_EQ(real.ok(), expected.ok()) << log_ << ": " << code_of(real) << ", not " << code_of(expected);
                return;
            }
        }
    }
    void commit_branch() {
        while (!open_.empty()) close_handle(0);
        std::string branch = any_branch();
        log_ = "commit " + branch;
        ModelPtr now = snapshot(*branches_[branch].root(), 0777);
        auto tree = fs_->worktree(branch);
        ASSERT_OK(tree);
        auto last = committed_.find(branch);
        bool changed = last == committed_.end() ? !now->children.empty() : !same_content(*now, *last->second);
        ASSERT_OK((*tree)->wait_ingested());  // until then a rewritten file counts as changed
        auto status = (*tree)->status();
        ASSERT_OK(status);
        std::string difference = last == committed_.end() ? "first commit" : first_difference(*now, *last->second);
        EXPECT_EQ(!status->changes.empty(), changed)
            << "status of " << branch << ": " << (status->changes.empty() ? difference : status->changes[0].path);
        repo::CommitOptions options;
        options.message = "model";
        auto done = (*tree)->commit(options);
        EXPECT_EQ(done.ok(), changed) << log_ << ": " << (done ? "committed" : done.error().message);
        if (!done) return;
        if (last != committed_.end()) keep_times(*now, *last->second);
        // The root's own mode is not kept.
        now->mode = 0755;
        committed_[branch] = now;
        commits_[done->id.hex()] = now;
    }
    void make_branch() {
        if (branches_.size() >= 3) return;
        std::string name = "b" + std::to_string(branches_.size());
        log_ = "branch " + name;
        EXPECT_OK(c().make_dir("branches/" + name));
        auto at = committed_.find("main");
        branches_[name] = at == committed_.end() ? ModelFs() : ModelFs(snapshot(*at->second, 0777));
        if (at != committed_.end()) committed_[name] = at->second;
    }
    void restart() {
        while (!open_.empty()) close_handle(0);
        log_ = "remount";
        remount();
    }

    bool is_open(const ModelPtr& node) const {
        return std::any_of(open_.begin(), open_.end(), [&](const OpenFile& f) { return f.node == node; });
    }

    void compare(const std::string& path, const ModelPtr& model, bool committed, std::set<vfs::NodeId>& seen) {
        auto attr = c().stat(path);
        ASSERT_TRUE(attr.ok()) << path << ": " << attr.error().message;
        EXPECT_EQ(attr->type, model->type) << path;
        if (model->type != FileType::kSymlink) {
            EXPECT_EQ(attr->mode, model->mode) << path;
        }
        EXPECT_TRUE(seen.insert(attr->node).second) << path << ": its inode number is another's too";
        for (const auto& [name, value] : model->xattrs) EXPECT_VALUE(c().xattr(path, name), value);
        if (model->type == FileType::kSymlink) {
            EXPECT_VALUE(c().link(path), model->content);
            EXPECT_EQ(attr->size, model->content.size());
            return;
        }
        if (model->type == FileType::kRegular) {
            EXPECT_EQ(attr->size, model->content.size()) << path;
            EXPECT_EQ(attr->nlink, 1u) << path;
            if (model->mtime_ns != 0) {
                EXPECT_EQ(attr->mtime_ns, model->mtime_ns) << path;
            }
            auto data = c().cat(path);
            ASSERT_TRUE(data.ok()) << path << ": " << data.error().message;
            EXPECT_TRUE(*data == model->content) << path << ": " << data->size() << " bytes read";
            return;
        }
        for (bool plus : {false, true}) {
            auto listed = c().list(path, plus, plus ? 2 : 3);
            ASSERT_OK(listed);
            std::map<std::string, vfs::NodeId> names;
            for (const Listed& item : *listed) {
                EXPECT_TRUE(names.emplace(item.name, item.attr.node).second) << path << ": twice " << item.name;
            }
            EXPECT_EQ(names.size(), model->children.size()) << path;
            for (const auto& [name, child] : model->children) {
                ASSERT_TRUE(names.count(name)) << path << ": does not list " << name;
                EXPECT_EQ(names[name], c().stat(path + "/" + name)->node) << path << "/" << name;
            }
        }
        for (const auto& [name, child] : model->children) compare(path + "/" + name, child, committed, seen);
    }
    void compare_all() {
        std::set<vfs::NodeId> seen;
        for (const auto& [name, model] : branches_) compare("branches/" + name, model.root(), false, seen);
        for (const OpenFile& file : open_) {
            auto data = c().read_all(file.handle);
            ASSERT_OK(data);
            EXPECT_TRUE(*data == file.node->content) << "an open file";
        }
        for (const auto& [id, model] : commits_) {
            if (!chance(20)) continue;
            std::set<vfs::NodeId> of_commit;
            compare("commits/" + id, model, true, of_commit);
        }
    }

    void step() {
        std::uint64_t dice = below(100);
        if (dice < 25)
            create_file();
        else if (dice < 35)
            open_file();
        else if (dice < 50)
            use_handle();
        else if (dice < 55)
            truncate();
        else if (dice < 63)
            change_attributes();
        else if (dice < 90)
            change_names();
        else if (dice < 94)
            commit_branch();
        else if (dice < 96)
            make_branch();
        else if (dice < 97)
            restart();
        else if (!open_.empty())
            close_handle(below(open_.size()));
    }
    void run(std::uint64_t seed, int operations) {
        SCOPED_TRACE("CORAL_SEED=" + std::to_string(seed));
        random_.seed(seed);
        branches_["main"] = ModelFs();
        for (int i = 0; i < operations && !HasFailure(); ++i) {
            step();
            if (HasFailure()) ADD_FAILURE() << "operation " << i << ": " << log_;
            if (i % 25 == 24) compare_all();
        }
        if (HasFailure()) {
            for (OpenFile& file : open_) fs_->release(file.handle);
            return;
        }
        restart();
        compare_all();
    }

    std::mt19937_64 random_;
    std::map<std::string, ModelFs> branches_;
    std::map<std::string, ModelPtr> committed_;  // by branch: its last commit
    std::map<std::string, ModelPtr> commits_;
    std::vector<OpenFile> open_;
    std::string log_;
};

int operations() {
    const char* text = std::getenv("CORAL_MODEL_OPS");
    return text ? std::atoi(text) : 300;
}

class ModelSeeds : public ModelTest, public ::testing::WithParamInterface<std::uint64_t> {};

TEST_P(ModelSeeds, RandomOperationsAgree) {
    run(GetParam(), operations());
}

// Some that are always the same, one that never is.
std::vector<std::uint64_t> seeds() {
    if (const char* text = std::getenv("CORAL_SEED")) return {std::strtoull(text, nullptr, 10)};
    return {1, 2, 3, 4, 5, 6, 7, std::random_device{}()};
}

// The index names the test, so that the list of tests is the same at every start.
INSTANTIATE_TEST_SUITE_P(Model, ModelSeeds, ::testing::ValuesIn(seeds()),
                         [](const auto& which) { return "seed" + std::to_string(which.index); });

}  // namespace
}  // namespace coral::test
