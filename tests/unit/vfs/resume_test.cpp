// SPDX-License-Identifier: Apache-2.0
// A process that follows another one, which ended without a word between carrying a request out and answering it. The
// first one is a child that leaves by _exit.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "coral/vfs/handover.hpp"
#include "vfs_fixture.hpp"

namespace coral::vfs {
namespace {

using test::noise;

constexpr std::uint64_t kUnique = 42;
const Caller kCaller{0, 0, 1, 0};

// The supervisor's part: nobody has had the lock meanwhile.
class Locks final : public repo::LockKeeper {
  public:
    explicit Locks(std::string path) : path_(std::move(path)) {}
    std::unique_ptr<File> inherited(const Uuid&) override {
        if (path_.empty()) return nullptr;
        auto file = real_os().open(path_, OpenMode::kReadWrite);
        path_.clear();
        return file && (*file)->try_lock(true) ? std::move(*file) : nullptr;
    }
    void keep(const Uuid&, const File&) override {}
    void drop(const Uuid&) override {}

  private:
    std::string path_;
};

// One process: repository, handover, filesystem.
struct Process {
    Process(const std::string& dir, Handover& left, const std::string& lock) : handover(left), locks(lock) {
        handover.count_worker();
        repo = *repo::Repository::open(real_os(), dir, {});
        Options options;
        options.threads = 1;
        options.handover = &handover;
        options.locks = &locks;
        auto opened = Filesystem::open(*repo, options);
        EXPECT_OK(opened);
        fs = std::move(*opened);
        main = fs->lookup(fs->lookup(kRoot, "branches")->attr.node, "main")->attr.node;
    }
    Handover& handover;
    Locks locks;
    std::unique_ptr<repo::Repository> repo;
    std::unique_ptr<Filesystem> fs;
    NodeId main = 0;
    HandleId left_open = 0;  // by the last change; the first process never closes it
};

std::unique_ptr<Handover> adopt(const Handover& from) {
    Handover::Files files;
    auto fds = from.descriptors();
    for (std::size_t i = 0; i < files.size(); ++i) files[i] = adopt_file(::dup(fds[i]), "handover");
    return *Handover::adopt(std::move(files));
}

class ResumeTest : public ::testing::Test {
  protected:
    void SetUp() override {
        ASSERT_OK(repo::Repository::init(real_os(), temp_ / "repo", {}));
        handover_ = *Handover::create();
    }
    std::string lock() const {
        auto names = real_os().list_dir(temp_ / "repo/run");
        if (!names) return {};
        for (const std::string& name : *names)
            if (name.ends_with(".lock")) return temp_ / ("repo/run/" + name);
        return {};
    }
    // Threads and fork do not mix: only the child ever had a filesystem when this is called.
    void in_a_child(const std::function<void(Process&)>& body) {
        pid_t child = ::fork();
        if (child == 0) {
            auto left = adopt(*handover_);
            Process process(temp_ / "repo", *left, {});
            body(process);
            ::_exit(::testing::Test::HasFailure() ? 1 : 0);
        }
        int status = 0;
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        ASSERT_EQ(status, 0);
    }
    void followed_by(const std::function<void(Process&)>& body) {
        auto left = adopt(*handover_);
        Process process(temp_ / "repo", *left, lock());
        body(process);
        current_request() = {};
        if (process.left_open != 0) process.fs->release(process.left_open);
        EXPECT_OK(process.fs->shut_down());
    }

    test::MemoryDir temp_;
    std::unique_ptr<Handover> handover_;
};

struct Change {
    const char* name;
    std::function<Status(Process&)> carry_out;
    // How often it is there, 1 when it was carried out once: looked at through names alone.
    std::function<bool(Process&)> done;
};

template <class T>
Status status_of(const Result<T>& result) {
    return result ? Status() : Status(result.error());
}
bool there(Process& p, const char* name) {
    return p.fs->lookup(p.main, name).ok();
}
void make(Process& p, const char* name) {
    auto made = p.fs->create(p.main, name, 0644, O_WRONLY, kCaller);
    ASSERT_OK(made);
    p.fs->release(made->second.handle);
}

std::vector<Change> changes() {
    return {
        {"mkdir", [](Process& p) { return status_of(p.fs->make_directory(p.main, "new", 0755, kCaller)); },
         [](Process& p) { return there(p, "new"); }},
        {"symlink", [](Process& p) { return status_of(p.fs->make_symlink(p.main, "new", "to", kCaller)); },
         [](Process& p) { return there(p, "new"); }},
        {"create",
         [](Process& p) {
             auto made = p.fs->create(p.main, "new", 0644, O_WRONLY | O_EXCL, kCaller);
             if (made) p.left_open = made->second.handle;
             return status_of(made);
         },
         [](Process& p) { return there(p, "new"); }},
        {"unlink", [](Process& p) { return p.fs->unlink(p.main, "a"); }, [](Process& p) { return !there(p, "a"); }},
        {"rmdir", [](Process& p) { return p.fs->remove_directory(p.main, "d"); },
         [](Process& p) { return !there(p, "d"); }},
        {"rename", [](Process& p) { return p.fs->rename(p.main, "a", p.main, "b", repo::RenameMode::kReplace); },
         [](Process& p) { return !there(p, "a") && there(p, "b"); }},
        {"exchange", [](Process& p) { return p.fs->rename(p.main, "a", p.main, "d", repo::RenameMode::kExchange); },
         [](Process& p) {
             auto a = p.fs->lookup(p.main, "a");
             return a && a->attr.type == FileType::kDirectory;
         }},
        {"setxattr",
         [](Process& p) {
             return p.fs->set_xattr(p.fs->lookup(p.main, "a")->attr.node, "user.x", "1",
                                    repo::Worktree::XattrMode::kCreate);
         },
         [](Process& p) { return p.fs->get_xattr(p.fs->lookup(p.main, "a")->attr.node, "user.x").ok(); }},
        {"branch",
         [](Process& p) {
             return status_of(p.fs->make_directory(p.fs->lookup(kRoot, "branches")->attr.node, "other", 0755, kCaller));
         },
         [](Process& p) { return p.fs->lookup(p.fs->lookup(kRoot, "branches")->attr.node, "other").ok(); }},
    };
}

void prepare(Process& p) {
    make(p, "a");
    make(p, "b");
    ASSERT_OK(p.fs->make_directory(p.main, "d", 0755, kCaller));
}

class EachChange : public ResumeTest, public ::testing::WithParamInterface<std::size_t> {};

TEST_P(EachChange, ThatWasCarriedOutIsOnlyAnswered) {
    Change change = changes()[GetParam()];
    SCOPED_TRACE(change.name);
    in_a_child([&](Process& p) {
        prepare(p);
        current_request() = {kUnique, false, -1};
        EXPECT_OK(change.carry_out(p));
    });
    followed_by([&](Process& p) {
        EXPECT_TRUE(change.done(p));
        current_request() = {kUnique, true, -1};
        EXPECT_OK(change.carry_out(p));
        p.handover.answered();
        EXPECT_TRUE(change.done(p));
        // The same by another request is another change.
        current_request() = {kUnique + 2, false, -1};
        Status once_more = change.carry_out(p);
        EXPECT_EQ(once_more.ok(), std::string_view(change.name) == "exchange") << change.name;
    });
}

TEST_P(EachChange, ThatWasOnlyBegunIsCarriedOut) {
    Change change = changes()[GetParam()];
    SCOPED_TRACE(change.name);
    in_a_child([&](Process& p) {
        prepare(p);
        // As `once` does it, but not what follows.
        std::string_view name(change.name);
        const char* at = name == "rmdir"                                              ? "d"
                         : name == "unlink" || name == "rename" || name == "exchange" ? "a"
                                                                                      : "new";
        auto ino = [&](const char* of) {
            auto entry = p.fs->lookup(p.main, of);
            return entry ? entry->attr.node - (NodeId{1} << 40) : 0;
        };
        const char* second = name == "rename" ? "b" : name == "exchange" ? "d" : "";
        bool no_inode = name == "setxattr" || name == "branch";
        p.handover.found(kUnique, {no_inode ? 0 : ino(at), *second ? ino(second) : 0});
    });
    followed_by([&](Process& p) {
        EXPECT_FALSE(change.done(p));
        current_request() = {kUnique, true, -1};
        EXPECT_OK(change.carry_out(p));
        EXPECT_TRUE(change.done(p));
    });
}

INSTANTIATE_TEST_SUITE_P(All, EachChange, ::testing::Range<std::size_t>(0, changes().size()),
                         [](const auto& one) { return std::string(changes()[one.param].name); });

TEST_F(ResumeTest, HandlesAndNodesGoOn) {
    NodeId committed = 0;
    HandleId writer = 0, removed = 0, reader = 0, unanswered = 0;
    int pipe[2];
    ASSERT_EQ(::pipe(pipe), 0);
    in_a_child([&](Process& p) {
        auto w = p.fs->create(p.main, "w", 0644, O_RDWR, kCaller);
        auto r = p.fs->create(p.main, "r", 0644, O_RDWR, kCaller);
        ASSERT_OK(w);
        ASSERT_OK(r);
        ASSERT_OK(p.fs->write(w->second.handle, 0, as_bytes("written")));
        ASSERT_OK(p.fs->write(r->second.handle, 0, as_bytes("removed")));
        make(p, "stored");
        repo::CommitOptions options;
        options.message = "one";
        options.allow_open = true;
        auto commit = (*p.fs->worktree("main"))->commit(options);
        ASSERT_OK(commit);
        auto dir = p.fs->lookup(p.fs->lookup(kRoot, "commits")->attr.node, commit->id.hex());
        auto file = p.fs->lookup(dir->attr.node, "stored");
        auto open = p.fs->open_file(file->attr.node, O_RDONLY, kCaller);
        ASSERT_OK(open);
        ASSERT_OK(p.fs->unlink(p.main, "r"));
        current_request() = {kUnique, false, -1};
        auto lost = p.fs->open_file(file->attr.node, O_RDONLY, kCaller);
        std::uint64_t out[] = {file->attr.node, w->second.handle, r->second.handle, open->handle, lost->handle};
        ASSERT_EQ(::write(pipe[1], out, sizeof out), static_cast<ssize_t>(sizeof out));
    });
    std::uint64_t in[5];
    ASSERT_EQ(::read(pipe[0], in, sizeof in), static_cast<ssize_t>(sizeof in));
    committed = in[0], writer = in[1], removed = in[2], reader = in[3], unanswered = in[4];
    followed_by([&](Process& p) {
        char bytes[7];
        MutableBytes out(reinterpret_cast<std::byte*>(bytes), sizeof bytes);
        EXPECT_VALUE(p.fs->read(writer, 0, out), 7u);
        EXPECT_EQ(std::string_view(bytes, 7), "written");
        EXPECT_VALUE(p.fs->read(removed, 0, out), 7u);
        EXPECT_EQ(std::string_view(bytes, 7), "removed");
        EXPECT_VALUE(p.fs->read(reader, 0, out), 0u);
        EXPECT_OK(p.fs->attributes(committed, std::nullopt)) << "a node that nobody looked up here";
        EXPECT_EQ(p.fs->usage().open_files, 4u);
        current_request() = {kUnique, true, -1};
        auto again = p.fs->open_file(committed, O_RDONLY, kCaller);
        ASSERT_OK(again);
        EXPECT_EQ(p.fs->usage().open_files, 4u) << "the handle that nobody was told of is closed";
        EXPECT_ERRC(p.fs->read(unanswered, 0, out), Errc::kBadHandle);
        EXPECT_GT(again->handle, unanswered);
        current_request() = {};
        for (HandleId id : {writer, removed, reader, again->handle}) {
            EXPECT_OK(p.fs->flush(id));
            p.fs->release(id);
        }
        EXPECT_FALSE(there(p, "r"));
        ASSERT_OK((*p.fs->worktree("main"))->wait_ingested());
    });
    // Nothing of the removed file is left to a process that does not follow anybody.
    handover_ = *Handover::create();
    followed_by([&](Process& p) { EXPECT_FALSE(there(p, "r")); });
}

class AnyBacking final : public BackingFiles {
  public:
    Result<std::uint32_t> open_backing(int) override { return ++last_; }
    void close_backing(std::uint32_t) override {}

  private:
    std::uint32_t last_ = 0;
};

// The kernel goes on with the file that it has. Opened or emptied anew, the file would be another one: what is written
// would be in none.
TEST_F(ResumeTest, AFileThatTheKernelHasAndTheBranchHasNotIsOpenedNoMore) {
    const std::string content = noise(2'000'000, 1);
    AnyBacking kernel;
    int pipe[2];
    ASSERT_EQ(::pipe(pipe), 0);
    in_a_child([&](Process& p) {
        make(p, "f");
        NodeId node = p.fs->lookup(p.main, "f")->attr.node;
        auto written = p.fs->open_file(node, O_WRONLY, kCaller);
        ASSERT_OK(written);
        ASSERT_OK(p.fs->write(written->handle, 0, as_bytes(content)));
        ASSERT_OK(p.fs->flush(written->handle));
        p.fs->release(written->handle);
        ASSERT_OK((*p.fs->worktree("main"))->wait_ingested());
        p.fs->set_backing_files(&kernel);
        auto reader = p.fs->open_file(node, O_RDONLY, kCaller);
        ASSERT_OK(reader);
        ASSERT_EQ(reader->mode, IoMode::kPassthrough);
        std::uint64_t out[] = {node, reader->handle};
        ASSERT_EQ(::write(pipe[1], out, sizeof out), static_cast<ssize_t>(sizeof out));
    });
    std::uint64_t in[2];
    ASSERT_EQ(::read(pipe[0], in, sizeof in), static_cast<ssize_t>(sizeof in));
    const std::string staging = temp_ / "repo/staging";
    auto trees = real_os().list_dir(staging);
    ASSERT_OK(trees);
    for (const std::string& tree : *trees) {
        auto files = real_os().list_dir(staging + "/" + tree);
        ASSERT_OK(files);
        for (const std::string& file : *files) ASSERT_OK(real_os().remove(staging + "/" + tree + "/" + file));
    }
    followed_by([&](Process& p) {
        p.fs->set_backing_files(&kernel);
        for (int flags : {O_RDONLY, O_WRONLY, O_WRONLY | O_TRUNC})
            EXPECT_ERRC(p.fs->open_file(in[0], flags, kCaller), Errc::kIo) << flags;
        p.fs->release(in[1]);
        auto reader = p.fs->open_file(in[0], O_RDONLY, kCaller);
        ASSERT_OK(reader);
        std::string out(content.size(), '\0');
        MutableBytes bytes(reinterpret_cast<std::byte*>(out.data()), out.size());
        EXPECT_VALUE(p.fs->read(reader->handle, 0, bytes), out.size());
        EXPECT_EQ(out, content);
        p.fs->release(reader->handle);
    });
}

}  // namespace
}  // namespace coral::vfs
