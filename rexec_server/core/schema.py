"""The tables of the index, version by version; and whether a file is of a version that this rexec knows."""

from __future__ import annotations

import errno

from rexec_server.core.about import Newer

_MAGIC = b"SQLite format 3\0"
_VERSION_AT = 60  # of the file's header: four bytes, big-endian; what PRAGMA user_version says

# Each step makes of the version before it the next one; a new file takes all of them.
SCHEMA = (
    """
CREATE TABLE execution (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    caller TEXT NOT NULL,
    exec_id TEXT NOT NULL,
    name TEXT NOT NULL UNIQUE,       -- of its directory in the spool
    digest BLOB NOT NULL,
    state INTEGER NOT NULL,
    request TEXT NOT NULL,           -- JSON of core.execution.Request
    exclusive_group TEXT NOT NULL,
    pid INTEGER NOT NULL DEFAULT 0,
    create_time INTEGER NOT NULL,
    start_time INTEGER NOT NULL DEFAULT 0,
    end_time INTEGER NOT NULL DEFAULT 0,
    expire_time INTEGER NOT NULL DEFAULT 0,
    delete_time INTEGER NOT NULL DEFAULT 0, -- since then only a tombstone
    exit BLOB,                       -- JSON of core.spool.ExitRecord
    extent TEXT,                     -- JSON of core.execution.Extent, at the end
    kept_bytes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (caller, exec_id)
);
CREATE INDEX execution_live ON execution (caller, exclusive_group) WHERE state < 3;
CREATE INDEX execution_expiry ON execution (expire_time) WHERE state >= 3 AND delete_time = 0;
CREATE INDEX execution_tombstone ON execution (delete_time) WHERE delete_time > 0;
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);
INSERT INTO meta VALUES ('digest_key', randomblob(32));
""",
    """
CREATE TABLE used_token (
    caller TEXT NOT NULL,
    token_id TEXT NOT NULL,
    exec_id TEXT NOT NULL,           -- what it started
    digest BLOB NOT NULL,
    expire_time INTEGER NOT NULL,    -- until then it is remembered
    UNIQUE (caller, token_id)
);
CREATE INDEX used_token_expiry ON used_token (expire_time);
""",
    """
ALTER TABLE execution ADD COLUMN boot_id TEXT NOT NULL DEFAULT ''; -- in which it was reserved; empty: not known
""",
    """
CREATE INDEX execution_caller ON execution (caller); -- and by seq within it: a page needs no sort
""",
    """
CREATE INDEX execution_group ON execution (caller, exclusive_group); -- and by seq: the newest of a group
""",
    """
ALTER TABLE execution ADD COLUMN runner TEXT NOT NULL DEFAULT ''; -- instance that it was reserved for; empty: not known
""",
    """
CREATE TABLE label (                 -- of each execution that is no tombstone
    caller TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (caller, name, value, seq)
) WITHOUT ROWID;
INSERT INTO label SELECT caller, key, value, seq FROM execution, json_each(request, '$.labels') WHERE delete_time = 0;
CREATE INDEX label_all ON label (name, value, seq); -- for an operator, who lists everybody's
CREATE INDEX label_seq ON label (seq);
CREATE TRIGGER label_kept AFTER INSERT ON execution WHEN new.delete_time = 0 BEGIN
    INSERT INTO label SELECT new.caller, key, value, new.seq FROM json_each(new.request, '$.labels');
END;
CREATE TRIGGER label_forgotten AFTER UPDATE OF delete_time ON execution WHEN new.delete_time > 0 BEGIN
    DELETE FROM label WHERE seq = new.seq;
END;
CREATE INDEX execution_rule ON execution (json_extract(request, '$.rule')) WHERE state < 3;
CREATE INDEX execution_ended ON execution (end_time, seq, kept_bytes, state) WHERE state >= 3 AND delete_time = 0;
DROP INDEX execution_caller;
DROP INDEX execution_group;
CREATE INDEX execution_caller ON execution (caller) WHERE delete_time = 0; -- tombstones are not walked over
CREATE INDEX execution_group ON execution (caller, exclusive_group) WHERE delete_time = 0;
CREATE INDEX execution_kept ON execution (seq) WHERE delete_time = 0;
""",
    # From here on what is kept for a time is kept by core.lived, which begins at 0: all that there is begins anew.
    """
ALTER TABLE execution ADD COLUMN end_lived INTEGER NOT NULL DEFAULT 0;
ALTER TABLE execution ADD COLUMN expire_lived INTEGER NOT NULL DEFAULT 0;
ALTER TABLE execution ADD COLUMN delete_lived INTEGER NOT NULL DEFAULT 0;
ALTER TABLE used_token ADD COLUMN expire_lived INTEGER NOT NULL DEFAULT 0;
UPDATE execution SET expire_lived = MAX(0, expire_time - end_time) WHERE state >= 3;
DROP INDEX execution_expiry;
DROP INDEX execution_tombstone;
CREATE INDEX execution_expiry ON execution (expire_lived) WHERE state >= 3 AND delete_time = 0;
CREATE INDEX execution_tombstone ON execution (delete_lived) WHERE delete_time > 0;
DROP INDEX execution_ended;
CREATE INDEX execution_ended ON execution (end_lived, seq, kept_bytes, state) WHERE state >= 3 AND delete_time = 0;
INSERT INTO meta VALUES ('lived', '');
""",
)


def check_version(path: str) -> None:
    """Looks whether an index is of a version that we know, and changes nothing, not even a lock. Newer, OSError."""
    try:
        with open(path, "rb") as file:
            head = file.read(100)
    except FileNotFoundError:
        return
    if not head:
        raise OSError(errno.EINVAL, f"{path} is empty: put a copy back, or remove it to begin with what the spool says")
    if head.startswith(_MAGIC):
        version = int.from_bytes(head[_VERSION_AT : _VERSION_AT + 4], "big")
        if version > len(SCHEMA):
            raise Newer(path, version, len(SCHEMA))
