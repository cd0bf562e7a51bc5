// SPDX-License-Identifier: Apache-2.0
// The header: numbers, INIT, and the states that requests found.
#include "coral/vfs/handover.hpp"

#include <cstring>
#include <new>

#include "vfs/handover_header.hpp"

namespace coral::vfs {

CurrentRequest& current_request() {
    thread_local CurrentRequest request;
    return request;
}

Handover::~Handover() = default;  // the mapping stays until the process ends: it is read by threads that end later

Result<std::unique_ptr<Handover>> Handover::create() {
    std::unique_ptr<Handover> made(new Handover());
    for (auto& file : made->files_) {
        CORAL_TRY(file, make_memory_file("coral-handover"));
    }
    CORAL_CHECK(made->files_[0]->truncate(sizeof(Header)));
    CORAL_CHECK(made->map(true));
    return made;
}

Result<std::unique_ptr<Handover>> Handover::adopt(Files files) {
    std::unique_ptr<Handover> made(new Handover());
    made->files_ = std::move(files);
    CORAL_CHECK(made->map(false));
    return made;
}

Status Handover::map(bool fresh) {
    CORAL_TRY(FileStat stat, files_[0]->stat());
    if (stat.size != sizeof(Header)) return make_error(Errc::kUnsupported, "another version began to serve this mount");
    CORAL_TRY(std::byte * at, map_shared(*files_[0], sizeof(Header)));
    if (fresh) {
        header_ = new (at) Header();
        return {};
    }
    header_ = reinterpret_cast<Header*>(at);
    if (header_->magic != kMagic) return make_error(Errc::kUnsupported, "another version began to serve this mount");
    return {};
}

std::array<int, Handover::kFiles> Handover::descriptors() const {
    return {files_[0]->native_handle(), files_[1]->native_handle(), files_[2]->native_handle()};
}

// ---- the connection

void Handover::keep_init(Bytes request) {
    if (request.size() > sizeof header_->init || header_->init_size != 0) return;
    std::memcpy(header_->init, request.data(), request.size());
    header_->init_size.store(static_cast<std::uint32_t>(request.size()), std::memory_order_release);
}

Buffer Handover::init() const {
    std::uint32_t size = header_->init_size.load(std::memory_order_acquire);
    const auto* from = reinterpret_cast<const std::byte*>(header_->init);
    return Buffer(from, from + size);
}

void Handover::set_resends(bool yes) {
    header_->resends = yes;
}
bool Handover::resends() const {
    return header_->resends;
}
void Handover::set_passthrough(bool on) {
    header_->passthrough = static_cast<std::uint32_t>(on ? Tri::kYes : Tri::kNo);
}
Handover::Tri Handover::passthrough() const {
    return static_cast<Tri>(header_->passthrough.load());
}
void Handover::set_ready() {
    header_->ready = true;
}
bool Handover::ready() const {
    return header_->ready;
}
void Handover::keep_socket_path(const std::string& path) {
    if (path.size() < sizeof header_->socket_path) std::memcpy(header_->socket_path, path.c_str(), path.size() + 1);
}
std::string Handover::socket_path() const {
    return std::string(header_->socket_path, ::strnlen(header_->socket_path, sizeof header_->socket_path));
}
void Handover::keep_device(const std::string& device) {
    if (device.size() < sizeof header_->device) std::memcpy(header_->device, device.c_str(), device.size() + 1);
}
std::string Handover::device() const {
    return std::string(header_->device, ::strnlen(header_->device, sizeof header_->device));
}
void Handover::count_worker() {
    ++header_->workers;
}
std::uint32_t Handover::workers() const {
    return header_->workers;
}
void Handover::count_answer() {
    header_->answers.fetch_add(1, std::memory_order_relaxed);
}
std::uint64_t Handover::answers() const {
    return header_->answers;
}
void Handover::begin_outside_change() {
    ++header_->outside_changes;
}
void Handover::end_outside_change() {
    --header_->outside_changes;
}
bool Handover::outside_change_was_cut() {
    return header_->outside_changes.exchange(0) != 0;
}

// ---- states

std::optional<Handover::State> Handover::found_before(std::uint64_t unique) {
    for (int i = 0; i < kSlots; ++i) {
        Slot& slot = header_->slots[i];
        if (slot.unique.load(std::memory_order_acquire) != unique) continue;
        current_request().slot = i;
        return State{slot.state[0], slot.state[1]};
    }
    return std::nullopt;
}

// A slot is taken by `owner` and means something from `unique` on: a kill in between leaves a slot that is only lost,
// and free again once two more processes have come.
void Handover::found(std::uint64_t unique, const State& state) {
    std::uint32_t me = header_->workers;
    for (int i = 0; i < kSlots; ++i) {
        Slot& slot = header_->slots[i];
        std::uint32_t owner = slot.owner;
        bool lost = owner != 0 && owner + kLostAfter < me;
        if ((owner != 0 && !lost) || !slot.owner.compare_exchange_strong(owner, me)) continue;
        slot.unique = 0;
        slot.state[0] = state[0];
        slot.state[1] = state[1];
        slot.unique.store(unique, std::memory_order_release);
        current_request().slot = i;
        return;
    }
}

void Handover::answered() {
    int& slot = current_request().slot;
    if (slot < 0) return;
    header_->slots[slot].unique = 0;
    header_->slots[slot].owner = 0;
    slot = -1;
}

HandleId Handover::next_handle() {
    return ++header_->last_handle;
}

}  // namespace coral::vfs
