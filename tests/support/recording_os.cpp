// SPDX-License-Identifier: Apache-2.0
#include "support/recording_os.hpp"

#include <fmt/format.h>

#include <stdexcept>

namespace coral::test {

std::string_view change_name(Change change) {
    static constexpr std::string_view kNames[] = {"create",      "mkdir",    "remove",      "rename",
                                                  "write",       "truncate", "change mode", "sync",
                                                  "failed sync", "sync dir", "mark"};
    return kNames[static_cast<int>(change)];
}

std::string to_string(const Operation& operation) {
    std::string text = fmt::format("{} {}", change_name(operation.change), operation.path);
    switch (operation.change) {
        case Change::kRename:
            return fmt::format("{} -> {}", text, operation.new_name);
        case Change::kWrite:
            return fmt::format("{} [{}, +{})", text, operation.offset, operation.data.size());
        case Change::kTruncate:
            return fmt::format("{} to {}", text, operation.offset);
        default:
            return text;
    }
}

class RecordingFile final : public File {
  public:
    RecordingFile(RecordingOs& os, std::unique_ptr<File> file, NodeId node, std::string path)
        : os_(os), file_(std::move(file)), node_(node), path_(std::move(path)) {}

    Result<std::size_t> read_at(std::uint64_t offset, MutableBytes out) override { return file_->read_at(offset, out); }
    Status write_at(std::uint64_t offset, Bytes data) override {
        return os_.write(node_, path_, offset, data, [&](Bytes part) { return file_->write_at(offset, part); });
    }
    Status truncate(std::uint64_t size) override {
        return os_.truncate(node_, path_, size, [&] { return file_->truncate(size); });
    }
    Status sync_data() override { return os_.sync(node_, path_, os_.lies_.files); }
    Result<FileStat> stat() override { return file_->stat(); }
    Status set_mtime(std::int64_t ns) override { return file_->set_mtime(ns); }  // times are not played back
    Status change_mode(std::uint32_t mode) override {
        return os_.change_mode(node_, path_, mode, [&] { return file_->change_mode(mode); });
    }
    Result<bool> try_lock(bool exclusive) override { return file_->try_lock(exclusive); }
    Status unlock() override { return file_->unlock(); }
    // What went past write_at would be missing in the log.
    int native_handle() const override { return -1; }

  private:
    RecordingOs& os_;
    std::unique_ptr<File> file_;
    NodeId node_;
    std::string path_;
};

RecordingOs::RecordingOs(std::string root, std::string boot)
    : ForwardingOs(std::move(boot)), root_(std::move(root)), shim_(*this) {
    auto names = real().list_dir(root_);
    if (!names || !names->empty()) throw std::runtime_error(root_ + ": must be an empty directory");
    directories_[kRootNode];
}

RecordingOs::~RecordingOs() = default;

std::optional<RecordingOs::Place> RecordingOs::place(const std::string& path) const {
    if (path.size() <= root_.size() + 1 || path.compare(0, root_.size(), root_) != 0 || path[root_.size()] != '/') {
        return std::nullopt;
    }
    Place at{kRootNode, {}};
    std::size_t begin = root_.size() + 1;
    while (true) {
        std::size_t end = std::min(path.find('/', begin), path.size());
        at.name = path.substr(begin, end - begin);
        if (end == path.size()) return at;
        NodeId next = node_at(at);
        if (!directories_.count(next)) return std::nullopt;
        at.directory = next;
        begin = end + 1;
    }
}

NodeId RecordingOs::node_at(const Place& at) const {
    const auto& names = directories_.at(at.directory);
    auto found = names.find(at.name);
    return found == names.end() ? kNoNode : found->second;
}

NodeId RecordingOs::find(const std::string& path) const {
    if (path == root_) return kRootNode;
    auto at = place(path);
    return at ? node_at(*at) : kNoNode;
}

void RecordingOs::record(Operation operation) {
    log_.push_back(std::move(operation));
}

std::optional<Errc> RecordingOs::next_fault() {
    std::uint64_t number = mutations_++;
    if (!fault_ || number < fault_->at || (number > fault_->at && !fault_->for_ever)) return std::nullopt;
    ++faults_;
    return fault_->code;
}

Status RecordingOs::change(Operation operation, const Act& act) {
    if (auto code = next_fault()) return make_error(*code, fmt::format("{}: injected failure", to_string(operation)));
    CORAL_CHECK(act());
    record(std::move(operation));
    return {};
}

Status RecordingOs::add_node(Change kind, const std::string& path, NodeId& node, const Act& act) {
    auto at = place(path);
    if (!at) return act();
    Operation operation;
    operation.change = kind;
    operation.node = node = next_node_++;
    operation.directory = at->directory;
    operation.name = at->name;
    operation.path = path.substr(root_.size() + 1);
    CORAL_CHECK(change(std::move(operation), act));
    directories_[at->directory][at->name] = node;
    if (kind == Change::kMakeDirectory) directories_[node];
    return {};
}

Status RecordingOs::take_name(const std::string& path, const Act& act) {
    auto at = place(path);
    NodeId node = at ? node_at(*at) : kNoNode;
    if (node == kNoNode) return act();  // SQLite's shared memory, or nothing at all
    Operation operation;
    operation.change = Change::kRemove;
    operation.node = node;
    operation.directory = at->directory;
    operation.name = at->name;
    operation.path = path.substr(root_.size() + 1);
    CORAL_CHECK(change(std::move(operation), act));
    directories_[at->directory].erase(at->name);
    return {};
}

Result<std::unique_ptr<File>> RecordingOs::open(const std::string& path, OpenMode mode) {
    std::lock_guard lock(mutex_);
    NodeId node = find(path);
    std::unique_ptr<File> file;
    bool creates = mode == OpenMode::kCreateNew || (mode == OpenMode::kOpenOrCreate && !real().stat(path));
    auto act = [&]() -> Status {
        CORAL_TRY(file, real().open(path, mode));
        return {};
    };
    if (creates)
        CORAL_CHECK(add_node(Change::kCreate, path, node, act));
    else
        CORAL_CHECK(act());
    if (node == kNoNode) return file;
    return std::unique_ptr<File>(std::make_unique<RecordingFile>(*this, std::move(file), node, path));
}

Status RecordingOs::rename(const std::string& from, const std::string& to) {
    std::lock_guard lock(mutex_);
    auto act = [&] { return real().rename(from, to); };
    auto source = place(from), target = place(to);
    NodeId node = source ? node_at(*source) : kNoNode;
    if (node == kNoNode || !target) return act();
    Operation operation;
    operation.change = Change::kRename;
    operation.node = node;
    operation.directory = source->directory;
    operation.name = source->name;
    operation.new_directory = target->directory;
    operation.new_name = target->name;
    operation.path = from.substr(root_.size() + 1);
    CORAL_CHECK(change(std::move(operation), act));
    directories_[source->directory].erase(source->name);
    directories_[target->directory][target->name] = node;
    return {};
}

Status RecordingOs::remove(const std::string& path) {
    std::lock_guard lock(mutex_);
    return take_name(path, [&] { return real().remove(path); });
}

Status RecordingOs::remove_dir(const std::string& path) {
    std::lock_guard lock(mutex_);
    return take_name(path, [&] { return real().remove_dir(path); });
}

Status RecordingOs::make_dir(const std::string& path, std::uint32_t mode) {
    std::lock_guard lock(mutex_);
    NodeId node = kNoNode;
    return add_node(Change::kMakeDirectory, path, node, [&] { return real().make_dir(path, mode); });
}

Status RecordingOs::sync_dir(const std::string& path) {
    std::lock_guard lock(mutex_);
    NodeId node = find(path);
    if (node == kNoNode) return real().sync_dir(path);
    Operation operation;
    operation.change = Change::kSyncDirectory;
    operation.node = node;
    operation.path = path.substr(std::min(path.size(), root_.size() + 1));
    if (auto code = next_fault()) return make_error(*code, fmt::format("{}: injected failure", to_string(operation)));
    if (!lies_.directories) record(std::move(operation));
    return {};
}

Status RecordingOs::write(NodeId node, const std::string& path, std::uint64_t offset, Bytes data,
                          const std::function<Status(Bytes)>& act) {
    std::lock_guard lock(mutex_);
    Operation operation;
    operation.change = Change::kWrite;
    operation.node = node;
    operation.offset = offset;
    operation.path = path.substr(root_.size() + 1);
    auto code = next_fault();
    Bytes part = !code ? data : data.first(fault_->short_write ? data.size() / 2 : 0);
    operation.data.assign(part.begin(), part.end());
    std::string text = to_string(operation);
    if (!part.empty()) {
        CORAL_CHECK(act(part));
        record(std::move(operation));
    }
    if (code) return make_error(*code, fmt::format("{}: injected failure", text));
    return {};
}

Status RecordingOs::truncate(NodeId node, const std::string& path, std::uint64_t size, const Act& act) {
    std::lock_guard lock(mutex_);
    Operation operation;
    operation.change = Change::kTruncate;
    operation.node = node;
    operation.offset = size;
    operation.path = path.substr(root_.size() + 1);
    return change(std::move(operation), act);
}

Status RecordingOs::change_mode(NodeId node, const std::string& path, std::uint32_t mode, const Act& act) {
    std::lock_guard lock(mutex_);
    Operation operation;
    operation.change = Change::kChangeMode;
    operation.node = node;
    operation.offset = mode;
    operation.path = path.substr(root_.size() + 1);
    return change(std::move(operation), act);
}

Status RecordingOs::sync(NodeId node, const std::string& path, bool lie) {
    std::lock_guard lock(mutex_);
    Operation operation;
    operation.change = Change::kSync;
    operation.node = node;
    operation.path = path.substr(root_.size() + 1);
    if (auto code = next_fault()) {
        Error error = make_error(*code, fmt::format("{}: injected failure", to_string(operation)));
        operation.change = Change::kSyncFailed;
        record(std::move(operation));
        return error;
    }
    if (!lie) record(std::move(operation));
    return {};
}

Result<std::uint64_t> RecordingOs::sqlite_open(const std::string& path, bool may_create, const Perform& perform) {
    std::lock_guard lock(mutex_);
    NodeId node = find(path);
    if (node == kNoNode && may_create)
        CORAL_CHECK(add_node(Change::kCreate, path, node, perform));
    else
        CORAL_CHECK(perform());
    paths_[node] = path;
    return node;
}

Status RecordingOs::sqlite_write(std::uint64_t file, std::uint64_t offset, Bytes data,
                                 const std::function<Status(Bytes)>& perform) {
    if (file == kNoNode) return perform(data);
    return write(file, sqlite_path(file), offset, data, perform);
}

Status RecordingOs::sqlite_truncate(std::uint64_t file, std::uint64_t size, const Perform& perform) {
    if (file == kNoNode) return perform();
    return truncate(file, sqlite_path(file), size, perform);
}

Status RecordingOs::sqlite_sync(std::uint64_t file, bool directory, const Perform& perform) {
    if (file == kNoNode) return perform();
    std::string path = sqlite_path(file);
    CORAL_CHECK(sync(file, path, lies_.sqlite));
    if (!directory || lies_.sqlite) return {};
    return sync_dir(path_parent(path));
}

Status RecordingOs::sqlite_remove(const std::string& path, bool sync_directory, const Perform& perform) {
    {
        std::lock_guard lock(mutex_);
        CORAL_CHECK(take_name(path, perform));
    }
    if (!sync_directory || lies_.sqlite) return {};
    return sync_dir(path_parent(path));
}

std::string RecordingOs::sqlite_path(NodeId file) const {
    std::lock_guard lock(mutex_);
    return paths_.at(file);
}

std::size_t RecordingOs::mark(std::string text) {
    std::lock_guard lock(mutex_);
    Operation operation;
    operation.change = Change::kMark;
    operation.path = std::move(text);
    record(std::move(operation));
    return log_.size();
}

std::size_t RecordingOs::position() const {
    std::lock_guard lock(mutex_);
    return log_.size();
}

void RecordingOs::set_fault(const std::optional<Fault>& fault) {
    std::lock_guard lock(mutex_);
    fault_ = fault;
    mutations_ = faults_ = 0;
}

std::uint64_t RecordingOs::mutations() const {
    std::lock_guard lock(mutex_);
    return mutations_;
}

std::uint64_t RecordingOs::faults() const {
    std::lock_guard lock(mutex_);
    return faults_;
}

}  // namespace coral::test
