// SPDX-License-Identifier: Apache-2.0
// Finding the owner of a worktree, and the commands on a real one.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "coral/base/thread_pool.hpp"
#include "coral/control/protocol.hpp"

namespace coral::control {
namespace {

class OwningService final : public Service {
  public:
    Result<DaemonInfo> info() override { return DaemonInfo{}; }
    Result<std::shared_ptr<repo::Worktree>> worktree(const std::string& branch) override {
        if (owned && owned->branch() == branch) return owned;
        return make_error(Errc::kNotFound, "not here");
    }
    Status branches_changed() override { return {}; }
    Status release_branch(const std::string&) override { return {}; }
    Status stop() override { return {}; }
    void settle() override { ++settled; }
    std::shared_ptr<repo::Worktree> owned;
    int settled = 0;
};

class OwnerTest : public testing::Test {
  protected:
    void SetUp() override {
        char pattern[] = "/tmp/coral-owner-XXXXXX";
        dir_ = ::mkdtemp(pattern);
        ::setenv("XDG_RUNTIME_DIR", dir_.c_str(), 1);
        auto made = repo::Repository::init(real_os(), dir_ + "/r", {});
        ASSERT_TRUE(made.ok()) << made.error().message;
        repo_ = std::move(*made);
    }
    void TearDown() override {
        server_.reset();
        service_.owned.reset();
        repo_.reset();
        std::filesystem::remove_all(dir_);
    }
    void own() {
        auto tree = repo::Worktree::open(*repo_, "main", pool_);
        ASSERT_TRUE(tree.ok()) << tree.error().message;
        service_.owned = *tree;
    }
    void serve() {
        auto server = Server::start(service_);
        ASSERT_TRUE(server.ok()) << server.error().message;
        server_ = std::move(*server);
        Status published = publish_owner(*repo_, service_.owned->uuid(), server_->socket_path());
        ASSERT_TRUE(published.ok()) << published.error().message;
    }

    std::string dir_;
    ThreadPool pool_{"test", 2};
    std::unique_ptr<repo::Repository> repo_;
    OwningService service_;
    std::unique_ptr<Server> server_;
};

TEST_F(OwnerTest, NobodyOwns) {
    auto owner = Client::owner_of(*repo_, "main");
    ASSERT_FALSE(owner.ok());
    EXPECT_EQ(owner.error().code, Errc::kNotFound);
    EXPECT_FALSE(Client::owner_of(*repo_, "no such branch").ok());
}

TEST_F(OwnerTest, AProcessWithoutASocketIsBusy) {
    own();
    auto owner = Client::owner_of(*repo_, "main");
    ASSERT_FALSE(owner.ok());
    EXPECT_EQ(owner.error().code, Errc::kBusy);
}

TEST_F(OwnerTest, ADeadOwnersSocketIsNoOwner) {
    own();
    serve();
    Uuid uuid = service_.owned->uuid();
    std::string path = server_->socket_path();
    server_.reset();
    service_.owned.reset();  // as after kill -9: the file still names the socket, the lock is free
    ASSERT_TRUE(repo_->os().exists(repo::Worktree::owner_path(*repo_, uuid)));
    auto owner = Client::owner_of(*repo_, "main");
    ASSERT_FALSE(owner.ok());
    EXPECT_EQ(owner.error().code, Errc::kNotFound);
    withdraw_owner(*repo_, uuid, "/another.sock");
    EXPECT_TRUE(repo_->os().exists(repo::Worktree::owner_path(*repo_, uuid)));
    withdraw_owner(*repo_, uuid, path);
    EXPECT_FALSE(repo_->os().exists(repo::Worktree::owner_path(*repo_, uuid)));
}

TEST_F(OwnerTest, ASocketOfSomebodyElseIsNoOwner) {
    own();
    serve();
    service_.owned.reset();  // the server lives but has given the branch back
    auto owner = Client::owner_of(*repo_, "main");
    ASSERT_FALSE(owner.ok());
    EXPECT_EQ(owner.error().code, Errc::kNotFound);
}

TEST_F(OwnerTest, CommandsOnAWorktree) {
    own();
    serve();
    auto found = Client::owner_of(*repo_, "main");
    ASSERT_TRUE(found.ok()) << found.error().message;
    Client& client = **found;

    std::vector<PlaceRequest> requests;
    requests.push_back({"d/\xff", {}, 0, 0750, 0, "", true});
    const int kLinks = 1500;  // with these names: several batches, and several parts of status
    for (int i = 0; i < kLinks; ++i)
        requests.push_back({"l/" + std::to_string(i) + std::string(245, '\xfe'), {}, 0, 0777, 0, "../t \x01", false});
    std::uint64_t last_done = 0;
    client.on_progress([&](std::uint64_t done, std::uint64_t) { last_done = std::max(last_done, done); });
    auto placed = client.place("main", requests);
    ASSERT_TRUE(placed.ok()) << placed.error().message;
    EXPECT_EQ(*placed, requests.size());
    EXPECT_EQ(last_done, requests.size());
    EXPECT_GT(service_.settled, 0);

    auto status = client.status("main");
    ASSERT_TRUE(status.ok()) << status.error().message;
    auto direct = service_.owned->status();
    ASSERT_TRUE(direct.ok());
    ASSERT_EQ(status->changes.size(), direct->changes.size());
    EXPECT_GE(status->changes.size(), std::size_t{kLinks});
    for (std::size_t i = 0; i < direct->changes.size(); ++i)
        EXPECT_EQ(status->changes[i].path, direct->changes[i].path);

    repo::CommitOptions options;
    options.message = "links";
    auto committed = client.commit("main", options);
    ASSERT_TRUE(committed.ok()) << committed.error().message;
    EXPECT_EQ(service_.owned->base_commit(), committed->id);
    EXPECT_TRUE(client.wait_ingested("main").ok());
    auto again = client.commit("main", options);
    EXPECT_FALSE(again.ok());
    auto commit = repo_->commit(committed->id);
    ASSERT_TRUE(commit.ok());
    auto restored = client.restore("main", (*commit)->tree, {});
    ASSERT_TRUE(restored.ok()) << restored.error().message;
    EXPECT_EQ(*restored, 0u);
}

TEST_F(OwnerTest, PathsFromOutsideAreChecked) {
    own();
    for (const char* path : {"", "/", "/a", "a/", "a//b", "../a", "a/../b", ".", "a/."}) {
        PlaceRequest request{path, {}, 0, 0755, 0, "x", false};
        auto placed = place_all(*service_.owned, {request});
        ASSERT_FALSE(placed.ok()) << path;
        EXPECT_EQ(placed.error().code, Errc::kInvalid) << path;
    }
}

TEST_F(OwnerTest, PlacingOverWhatIsThere) {
    own();
    auto place = [&](PlaceRequest request) { return place_all(*service_.owned, {request}).ok(); };
    EXPECT_TRUE(place({"a", {}, 0, 0777, 0, "one", false}));
    EXPECT_TRUE(place({"a", {}, 0, 0777, 0, "two", false}));
    auto link = service_.owned->lookup_path("a");
    ASSERT_TRUE(link.ok());
    EXPECT_EQ(service_.owned->link_target(*link), "two");
    EXPECT_FALSE(place({"a/b", {}, 0, 0777, 0, "x", false}));  // a is no folder
    EXPECT_TRUE(place({"d", {}, 0, 0700, 0, "", true}));
    EXPECT_TRUE(place({"d", {}, 0, 0711, 0, "", true}));
    EXPECT_EQ(service_.owned->attributes(*service_.owned->lookup_path("d")).mode, 0711u);
    EXPECT_FALSE(place({"d", {}, 0, 0777, 0, "x", false}));  // a link does not replace a folder
    auto names = service_.owned->list(service_.owned->root(), "", 10);
    ASSERT_TRUE(names.ok());
    EXPECT_EQ(names->size(), 2u);  // nothing temporary is left
}

}  // namespace
}  // namespace coral::control
