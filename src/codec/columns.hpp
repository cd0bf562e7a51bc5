// SPDX-License-Identifier: Apache-2.0
// Finds blocks in bytes: quantised weights come with a scale each so many bytes, which is nothing like them.
#pragma once

#include "codec/tensor_train.hpp"

namespace coral::codec {

// Tables of their own for places in blocks of one of the lengths that are in use, or none. `bits`: of all chunks that
// were measured, tables included; infinite without blocks.
Trained<std::optional<Columns>> train_columns(Bytes raw, unsigned chunk_log2, const std::vector<std::uint32_t>& chunks);

}  // namespace coral::codec
