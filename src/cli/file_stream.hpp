// SPDX-License-Identifier: Apache-2.0
// The bytes of a stored file, in order, decoded ahead and verified.
#pragma once

#include <functional>
#include <memory>

#include "coral/store/store.hpp"

namespace coral::cli {

// `sink` gets all bytes of the file. kCorrupt at the end when they are not the ones that the file's name promises.
Status stream_file(store::Store& store, const std::shared_ptr<const store::FileRecord>& record,
                   const std::function<Status(Bytes)>& sink);

}  // namespace coral::cli
