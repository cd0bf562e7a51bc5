// SPDX-License-Identifier: Apache-2.0
#include "formats/pickle.hpp"

#include <string>
#include <utility>

#include "formats/limits.hpp"
#include "formats/pickle_machine.hpp"

namespace coral::formats {

bool TorchPickle::read(SourceReader& reader) {
    return PickleMachine(*this, reader).run();
}

// Depth first without recursion; every container is entered once, by the path that reaches it first.
class PickleWalk {
  public:
    PickleWalk(TorchPickle& pickle, const TorchPickle::Visitor& visit)
        : pickle_(pickle), heap_(pickle.heap_), visit_(visit) {}

    void run() {
        for (Value root : pickle_.roots_) {
            path_.clear();
            enter(root, false);
            while (!frames_.empty()) advance();
        }
        // What no path reaches (an early end, arguments that were dropped) still tells about its storage.
        for (PickledTensor& tensor : pickle_.tensors_) show(tensor, {});
    }

  private:
    enum class Stage : std::uint8_t { kArguments, kItems, kState, kDone };
    struct Frame {
        Value container;
        Cursor cursor;
        std::uint32_t index = 0;
        std::uint32_t path_size = 0;
        Stage stage = Stage::kArguments;
        bool is_state = false;  // its keys are attributes of the object around it
    };

    void show(PickledTensor& tensor, std::string_view path) {
        if (std::exchange(tensor.visited, true)) return;
        visit_(tensor.storage, &tensor, path);
    }

    // `path_` is the path of `v`.
    void enter(Value v, bool is_state) {
        if (v.tag() == Tag::kTensor) {
            PickledTensor& tensor = pickle_.tensors_[v.index()];
            show(tensor, path_);
            show_quantiser(tensor);
        } else if (v.tag() == Tag::kStorage) {
            visit_(v.index(), nullptr, path_);
        } else if (v.is_container() && frames_.size() < kMaxPickleDepth && path_.size() <= kMaxNameLength) {
            if (std::exchange(heap_.node(v).visited, true)) return;
            Frame frame;
            frame.container = v;
            frame.cursor = heap_.begin(heap_.node(v));
            frame.path_size = static_cast<std::uint32_t>(path_.size());
            frame.is_state = is_state;
            frames_.push_back(frame);
        }
    }

    // (scheme, scales, zero points, axis) of a tensor quantised by channel.
    void show_quantiser(const PickledTensor& tensor) {
        const Value scale = heap_.item(tensor.quantiser, 1), zero_point = heap_.item(tensor.quantiser, 2);
        if (scale.tag() == Tag::kTensor) show(pickle_.tensors_[scale.index()], path_ + ".scale");
        if (zero_point.tag() == Tag::kTensor) show(pickle_.tensors_[zero_point.index()], path_ + ".zero_point");
    }

    // Spares the path of everything else.
    static bool leads_on(Value v) { return v.is_container() || v.tag() == Tag::kTensor || v.tag() == Tag::kStorage; }

    void append(std::string_view component) {
        if (!path_.empty()) path_ += '.';
        path_ += component;
    }

    void append_key(Value key, std::uint32_t index) {
        switch (key.tag()) {
            case Tag::kText:
                return append(heap_.text(key));
            case Tag::kInt:
                return append(std::to_string(key.as_int()));
            case Tag::kBool:
                return append(key.payload() != 0 ? "True" : "False");
            default:
                return append("?" + std::to_string(index));
        }
    }

    // A module pickled whole keeps its tensors in these; its state_dict() leaves them out of the names.
    static bool is_module_dict(std::string_view key) {
        return key == "_parameters" || key == "_buffers" || key == "_modules";
    }

    void advance() {
        Frame& frame = frames_.back();
        path_.resize(frame.path_size);
        const Node& node = heap_.node(frame.container);
        if (frame.stage == Stage::kArguments) {
            frame.stage = Stage::kItems;
            return enter(node.arguments, false);
        }
        if (frame.stage == Stage::kItems) {
            if (enter_item(frame, node)) return;
            frame.stage = Stage::kState;
        }
        if (frame.stage == Stage::kState) {
            frame.stage = Stage::kDone;
            return enter(node.state, true);
        }
        frames_.pop_back();
    }

    // False when there are no more. `frame` may be gone afterwards.
    bool enter_item(Frame& frame, const Node& node) {
        Value item, key;
        if (!heap_.next(frame.cursor, item)) return false;
        const std::uint32_t index = frame.index++;
        if (node.pairs) {
            key = item;
            if (!heap_.next(frame.cursor, item)) return false;
            if (!leads_on(item)) return true;
            if (!(frame.is_state && is_module_dict(heap_.text(key)))) append_key(key, index);
            enter(item, false);
        } else if (frame.is_state) {
            enter(item, true);  // (attributes, slots)
        } else if (leads_on(item)) {
            append(std::to_string(index));
            enter(item, false);
        }
        return true;
    }

    TorchPickle& pickle_;
    PickleHeap& heap_;
    const TorchPickle::Visitor& visit_;
    std::string path_;
    std::vector<Frame> frames_;
};

void TorchPickle::walk(const Visitor& visit) {
    PickleWalk(*this, visit).run();
}

}  // namespace coral::formats
