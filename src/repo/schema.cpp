// SPDX-License-Identifier: Apache-2.0
#include "repo/state.hpp"

namespace coral::repo {

const char* const kMigrations[State::kVersion] = {R"sql(
-- key/value facts: 'head' ("heads/main", or 40+ hex of a commit when detached), 'ref_seq', 'full_commits' (a FULL commit must
-- change a row or nothing is synced).
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;

CREATE TABLE refs(
  name TEXT PRIMARY KEY,              -- heads/main, tags/v1.0
  target BLOB NOT NULL,
  annotated INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE reflog(
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  ref TEXT NOT NULL, old_target BLOB, new_target BLOB,
  actor TEXT NOT NULL, reason TEXT NOT NULL, time_ns INTEGER NOT NULL
);
CREATE INDEX reflog_by_ref ON reflog(ref, seq);

CREATE TABLE worktree(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  uuid BLOB NOT NULL UNIQUE,
  branch TEXT NOT NULL UNIQUE,        -- without heads/
  base_commit BLOB,                   -- NULL: unborn
  root INTEGER NOT NULL DEFAULT 0     -- inode of its root directory
);

-- One row per file, directory and symlink of a worktree whose directory has been looked into. Inode numbers never go back.
CREATE TABLE inode(
  ino INTEGER PRIMARY KEY AUTOINCREMENT,
  worktree INTEGER NOT NULL,
  parent INTEGER NOT NULL,            -- 0 for a root
  name BLOB NOT NULL,
  type INTEGER NOT NULL,              -- 1 file, 2 directory, 3 symlink
  mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL,
  size INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
  content BLOB,                       -- file: FILE id of the last content that was ingested; directory: TREE id it was filled from
  link BLOB,                          -- symlink text
  xattrs BLOB,                        -- encoded pairs; NULL: none
  filled INTEGER NOT NULL DEFAULT 0,  -- directory: its entries are rows
  dirty INTEGER NOT NULL DEFAULT 0,   -- directory: something below may differ from content
  version INTEGER NOT NULL DEFAULT 0, -- directory: grows with every change of its entries
  staging BLOB,                       -- file: uuid of the staging file that holds the content now
  ingested INTEGER NOT NULL DEFAULT 0,-- file: content names the staging file's bytes; staging goes once packs are synced
  complete INTEGER NOT NULL DEFAULT 1,-- file: 1 closed by its writer; 2 lent to the kernel: so as soon as nobody writes it
  synced INTEGER NOT NULL DEFAULT 0,  -- file: staging bytes on the disk: 0 perhaps none, 1 all, 2 those of an earlier fsync
  boot TEXT NOT NULL DEFAULT '',      -- boot id under which the staging file was written
  overlay BLOB,                       -- file: FILE id under the staging file; NULL: the staging file is whole
  overlay_limit INTEGER NOT NULL DEFAULT 0, -- smallest size since the overlay began: beyond it the base shows no more
  previous BLOB                       -- file: FILE id that this one replaced by rename, shown again if unsynced bytes are lost
);
CREATE UNIQUE INDEX inode_by_name ON inode(parent, name) WHERE parent != 0;
CREATE INDEX inode_by_staging ON inode(worktree) WHERE staging IS NOT NULL;

-- Units of 256 KiB of an overlaid staging file that are in it; the others still show the base.
CREATE TABLE overlay_unit(staging BLOB NOT NULL, unit INTEGER NOT NULL, PRIMARY KEY(staging, unit)) WITHOUT ROWID;
)sql",
                                                  R"sql(
-- Bytes of a stored file that show through an overlaid staging file from the beginning of a unit on, where overlay_unit
-- does not have the unit. Of several the one with the highest seq.
CREATE TABLE overlay_link(
  seq INTEGER PRIMARY KEY,
  staging BLOB NOT NULL, unit INTEGER NOT NULL,
  length INTEGER NOT NULL,            -- bytes
  content BLOB NOT NULL,              -- FILE id
  source INTEGER NOT NULL             -- where in it they begin
);
CREATE INDEX overlay_link_by_staging ON overlay_link(staging, unit);
)sql"};

}  // namespace coral::repo
