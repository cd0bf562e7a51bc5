// SPDX-License-Identifier: Apache-2.0
// The second half of `coral add`: bytes of outside files into the store, a few files at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cli/context.hpp"
#include "cli/import_scan.hpp"
#include "cli/progress.hpp"
#include "coral/control/protocol.hpp"
#include "coral/repo/ingest.hpp"

namespace coral::cli {

struct Imported {
    std::vector<control::PlaceRequest> requests;  // one an item, in the plan's order
    std::uint64_t stored_bytes = 0;               // appended to the packs
    std::vector<std::shared_ptr<void>> pins;      // until they have names
};

// kConflict names a file that changed while it was read. What was stored by then stays, named by nothing.
Result<Imported> store_files(Context& context, const ImportPlan& plan, repo::BaseMap& bases, Progress& progress);

}  // namespace coral::cli
