-- The tables of schema version 1 before the first migration, and statements that programs with them send: sqlite.

-- name: ddl
CREATE TABLE IF NOT EXISTS coatcheck_session (
    id INTEGER PRIMARY KEY,
    sid TEXT NOT NULL UNIQUE,
    digest BLOB NOT NULL UNIQUE,
    created REAL NOT NULL,
    seen REAL NOT NULL,
    deadline REAL NOT NULL,
    idle REAL NOT NULL,
    absolute REAL NOT NULL,
    user TEXT,
    auth_time REAL,
    rotated REAL NOT NULL,
    prior BLOB,
    prior_until REAL NOT NULL DEFAULT 0,
    grace REAL NOT NULL DEFAULT 0,
    ends REAL GENERATED ALWAYS
        AS (min(deadline, seen + idle, coalesce(auth_time, created) + absolute)) STORED
)

-- name: ddl
CREATE INDEX IF NOT EXISTS coatcheck_session_ends ON coatcheck_session (ends)

-- name: ddl
CREATE INDEX IF NOT EXISTS coatcheck_session_user ON coatcheck_session (user) WHERE user IS NOT NULL

-- name: ddl
CREATE UNIQUE INDEX IF NOT EXISTS coatcheck_session_prior ON coatcheck_session (prior) WHERE prior IS NOT NULL

-- name: ddl
CREATE TABLE IF NOT EXISTS coatcheck_value (
    session INTEGER NOT NULL,
    app TEXT NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    data,
    PRIMARY KEY (session, app, key)
) WITHOUT ROWID

-- name: ddl
CREATE TABLE IF NOT EXISTS coatcheck_ended (
    digest BLOB PRIMARY KEY, reason TEXT NOT NULL, until REAL NOT NULL, sid TEXT
) WITHOUT ROWID

-- name: ddl
CREATE INDEX IF NOT EXISTS coatcheck_ended_until ON coatcheck_ended (until)

-- name: ddl
CREATE TABLE IF NOT EXISTS coatcheck_fence (user TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID

-- name: ddl
CREATE TABLE IF NOT EXISTS coatcheck_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID

-- name: set_meta
INSERT OR IGNORE INTO coatcheck_meta (key, value) VALUES (?, ?)

-- name: create
INSERT INTO coatcheck_session
    (sid, digest, created, seen, deadline, idle, absolute, user, auth_time, rotated)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: load
SELECT +sid, +created, +seen, +deadline, +idle, +absolute FROM coatcheck_session WHERE digest = ?1
UNION ALL
SELECT +user, +auth_time, +rotated, +prior_until, +ends, NULL FROM coatcheck_session WHERE digest = ?1
UNION ALL
SELECT +app, +key, +version, +data, NULL, NULL
FROM coatcheck_value WHERE session = (SELECT id FROM coatcheck_session WHERE digest = ?1)

-- name: find
SELECT +id, +sid, +created, +seen, +deadline, +idle, +absolute, +user, +auth_time, +rotated,
       +prior_until, +ends, +grace, +digest, +prior
FROM coatcheck_session WHERE digest = ?

-- name: put
INSERT INTO coatcheck_value (session, app, key, version, data) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (session, app, key) DO UPDATE SET version = excluded.version, data = excluded.data

-- name: update
UPDATE coatcheck_session SET
    seen = max(seen, coalesce(?, seen)), deadline = coalesce(?, deadline), user = coalesce(?, user),
    auth_time = coalesce(?, auth_time), prior_until = ?
WHERE id = ?

-- name: rotate
UPDATE coatcheck_session SET digest = ?, prior = ?, prior_until = ?, grace = ?, rotated = ?
WHERE id = ?

-- name: of_user
SELECT +id, +sid, +created, +seen, +deadline, +idle, +absolute, +user, +auth_time, +rotated,
       +prior_until, +ends, +grace, +digest, +prior
FROM coatcheck_session WHERE user = ? ORDER BY created, id
