// SPDX-License-Identifier: Apache-2.0
// Telling systemd (Type=notify) that the mount answers. Its protocol is one datagram; no library is needed for that.
#pragma once

namespace coral::fuse {

// To the socket that NOTIFY_SOCKET names; nothing happens when there is none. Call it once.
void tell_service_manager_ready();

}  // namespace coral::fuse
