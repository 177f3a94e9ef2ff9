BEGIN TRANSACTION;
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
INSERT INTO "execution" VALUES(1,'dev','ended','7dd63b71180148c4933a7eb4cf971159',X'7B1669B1543D3454ADB6A898991DB206E1A6A61203FF1692E18E636C21B66E54',4,'{"arguments": ["sh", "-c", "echo out; echo err >&2; exit 3"], "shell": "", "working_directory": "/", "environment_names": [], "labels": {}, "exclusive_group": "", "channels": 2, "stdin_bytes": 0, "stdin_open": false, "retention": 86400.0, "rule": "", "granted": [], "user": null}','',7768,1795875103345785233,1795875103390048672,1795875103399017976,4102444800000000000,0,X'7B22726561736F6E223A20312C2022656E645F74696D65223A20313739353837353130333339393031373937362C20227374646F75745F6279746573223A20342C20227374646572725F6279746573223A20342C20226F75747075745F636F6D706C657465223A20747275652C20226C6566746F7665725F70726F636573736573223A20302C2022657869745F636F6465223A20332C20227369676E616C223A206E756C6C2C202273746172745F6572726F72223A206E756C6C2C20226C6F7374223A206E756C6C2C20227573616765223A205B302E3030313933362C20302E302C2031323738373731325D2C20227772697474656E5F6279223A20227368696D227D0A','[0, 8, [4, 4], [0, 0]]',8);
INSERT INTO "execution" VALUES(2,'dev','forgotten','0988375bd54d4112bc586b2d73134226',X'D1F613762F0889D463DCCFA1741152B31A9D09D3F2DB960A9FB42AEB234D61F0',3,'{}','',7780,1795875103417401401,1795875103450589781,1795875103473246653,1795961503473246653,1795875104505368773,NULL,NULL,0);
INSERT INTO "execution" VALUES(3,'dev','running','ed11f6f325c243d799baf1a9baa7ece1',X'65CB452DA4FD09417FE5C2D7AB6FD25A926FBDD360245B602E8FEEA9EA138B72',2,'{"arguments": ["sleep", "600"], "shell": "", "working_directory": "/", "environment_names": [], "labels": {}, "exclusive_group": "", "channels": 2, "stdin_bytes": 0, "stdin_open": false, "retention": 86400.0, "rule": "", "granted": [], "user": null}','',7795,1795875103461559278,1795875103494035425,0,0,0,NULL,NULL,0);
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);
INSERT INTO "meta" VALUES('digest_key',X'5F8041A3FB04FC6A4EEC8E216BAE90C5D52F851BB66D09CB528EFED8485116A8');
CREATE TABLE used_token (
    caller TEXT NOT NULL,
    token_id TEXT NOT NULL,
    exec_id TEXT NOT NULL,           -- what it started
    digest BLOB NOT NULL,
    expire_time INTEGER NOT NULL,    -- until then it is remembered
    UNIQUE (caller, token_id)
);
CREATE INDEX execution_live ON execution (caller, exclusive_group) WHERE state < 3;
CREATE INDEX execution_expiry ON execution (expire_time) WHERE state >= 3 AND delete_time = 0;
CREATE INDEX execution_tombstone ON execution (delete_time) WHERE delete_time > 0;
CREATE INDEX used_token_expiry ON used_token (expire_time);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('execution',3);
COMMIT;
PRAGMA user_version=2;
