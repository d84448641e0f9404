-- The foundation: who owns what, what runs where. Ids are UUIDs as text; times are Unix microseconds;
-- columns named *_sealed are AEAD ciphertext (control-plane/src/store/seal.rs); *_json are serde types of `wire`.

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE teams (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO teams (id, name, created_at)
VALUES ('00000000-0000-7000-8000-000000000001', 'default', 0);

CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    team_id TEXT NOT NULL REFERENCES teams (id),
    name TEXT NOT NULL,
    secret_sha256 BLOB NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    used_at INTEGER
) STRICT;

CREATE TABLE hosts (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    secret_sha256 BLOB NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    seen_at INTEGER,
    facts_json TEXT NOT NULL DEFAULT '{}',
    edge_json TEXT NOT NULL DEFAULT '{}',
    events_received INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE apps (
    id TEXT PRIMARY KEY,
    team_id TEXT NOT NULL REFERENCES teams (id),
    name TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    deleted_at INTEGER,
    -- What the first release will start from, until there is one.
    config_sealed BLOB NOT NULL,
    formation_json TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE UNIQUE INDEX apps_name ON apps (name) WHERE deleted_at IS NULL;

CREATE TABLE domains (
    domain TEXT PRIMARY KEY,
    app_id TEXT NOT NULL REFERENCES apps (id)
) STRICT;
CREATE INDEX domains_app ON domains (app_id);

CREATE TABLE stacks (
    name TEXT PRIMARY KEY,
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,
    imported_at INTEGER NOT NULL
) STRICT;

CREATE TABLE builds (
    id TEXT PRIMARY KEY,
    app_id TEXT NOT NULL REFERENCES apps (id),
    created_at INTEGER NOT NULL,
    ended_at INTEGER,
    commit_id TEXT,
    source TEXT NOT NULL,
    stack_json TEXT NOT NULL,
    -- Whose token asked.
    asked_by TEXT NOT NULL,
    -- 1: success makes a release by itself (an upload); 0: whoever asked makes it (a push, after its ref moved).
    releases INTEGER NOT NULL,
    status TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    image_json TEXT,
    manifest_json TEXT,
    trouble_json TEXT,
    release INTEGER
) STRICT;
CREATE INDEX builds_app ON builds (app_id, created_at);
CREATE INDEX builds_open ON builds (status) WHERE status IN ('queued', 'running');

CREATE TABLE releases (
    app_id TEXT NOT NULL REFERENCES apps (id),
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    description TEXT NOT NULL,
    made_by TEXT NOT NULL,
    status TEXT NOT NULL,
    -- When it began to serve; starts the watch window.
    switched_at INTEGER,
    trouble_json TEXT,
    image_json TEXT NOT NULL,
    manifest_json TEXT NOT NULL,
    commit_id TEXT,
    build_id TEXT REFERENCES builds (id),
    config_sealed BLOB NOT NULL,
    formation_json TEXT NOT NULL,
    -- Another with each restart: the same content with another nonce is another set of instances.
    restart_nonce INTEGER NOT NULL,
    runs_command INTEGER NOT NULL,
    PRIMARY KEY (app_id, version)
) STRICT;
CREATE INDEX releases_live ON releases (status) WHERE status IN ('releasing', 'rolling', 'current');

CREATE TABLE instances (
    id TEXT PRIMARY KEY,
    app_id TEXT NOT NULL REFERENCES apps (id),
    host_id TEXT NOT NULL REFERENCES hosts (id),
    -- Equal for instances that do the same: why one can be kept across a release.
    fingerprint TEXT NOT NULL,
    -- The newest release that it belongs to.
    release INTEGER NOT NULL,
    build_id TEXT REFERENCES builds (id),
    desired TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    spec_sealed BLOB NOT NULL,
    report_json TEXT
) STRICT;
CREATE INDEX instances_app ON instances (app_id);
CREATE INDEX instances_host ON instances (host_id);

CREATE TABLE specs (
    host_id TEXT PRIMARY KEY REFERENCES hosts (id),
    number INTEGER NOT NULL,
    content_digest TEXT NOT NULL,
    spec_sealed BLOB NOT NULL
) STRICT;

CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    app_id TEXT NOT NULL REFERENCES apps (id),
    at INTEGER NOT NULL,
    process TEXT NOT NULL,
    code TEXT,
    message TEXT NOT NULL
) STRICT;
CREATE INDEX events_app ON events (app_id, id);
