// SPDX-License-Identifier: Apache-2.0
// The way between libfuse and /dev/fuse: every request is looked at as it is read, every answer as it is written
// (fuse_session_custom_io). For passthrough (passthrough.hpp), and so that a process can follow another one on the same
// connection:
//
//   first process   keeps the kernel's INIT in the Handover
//   later ones      the first read hands libfuse that INIT with a number of our own; the answer to it goes nowhere, but
//                   the kernel is told to send again what the dead process had taken (FUSE_NOTIFY_RESEND, Linux 6.9).
//                   Until then nobody reads. What comes again has bit 63 set in its number.
//
// One session per process. Layouts: <linux/fuse.h> of Linux 6.9.
#pragma once

#include "coral/base/result.hpp"
#include "coral/vfs/handover.hpp"
#include "fuse_api.hpp"

namespace coral::fuse {

// Between fuse_session_mount and the loop. `handover`: null when nobody will follow; outlives the session.
Status open_channel(fuse_session* session, vfs::Handover* handover);

}  // namespace coral::fuse
