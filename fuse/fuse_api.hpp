// SPDX-License-Identifier: Apache-2.0
// The one way to include libfuse: its headers need the version first.
#pragma once

#define FUSE_USE_VERSION 312
#include <fuse3/fuse_lowlevel.h>
