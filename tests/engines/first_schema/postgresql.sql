-- The tables of schema version 1 before the first migration, and statements that programs with them send: postgresql.

-- name: ddl
CREATE TABLE IF NOT EXISTS coatcheck_session (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sid text COLLATE "C" NOT NULL UNIQUE,
    digest bytea NOT NULL UNIQUE,
    created double precision NOT NULL,
    seen double precision NOT NULL,
    deadline double precision NOT NULL,
    idle double precision NOT NULL,
    absolute double precision NOT NULL,
    username text COLLATE "C",
    auth_time double precision,
    rotated double precision NOT NULL,
    prior bytea,
    prior_until double precision NOT NULL,
    grace double precision NOT NULL,
    ends double precision NOT NULL GENERATED ALWAYS
        AS (LEAST(deadline, seen + idle, COALESCE(auth_time, created) + absolute)) STORED
)

-- name: ddl
CREATE INDEX IF NOT EXISTS coatcheck_session_ends ON coatcheck_session (ends)

-- name: ddl
CREATE INDEX IF NOT EXISTS coatcheck_session_user ON coatcheck_session (username) WHERE username IS NOT NULL

-- name: ddl
CREATE UNIQUE INDEX IF NOT EXISTS coatcheck_session_prior ON coatcheck_session (prior) WHERE prior IS NOT NULL

-- name: ddl
CREATE TABLE IF NOT EXISTS coatcheck_value (
    session bigint NOT NULL,
    app text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    data bytea,
    number bigint,
    PRIMARY KEY (session, app, name)
) WITH (fillfactor = 80)

-- name: ddl
CREATE TABLE IF NOT EXISTS coatcheck_ended (
    digest bytea PRIMARY KEY,
    reason text NOT NULL,
    expires double precision NOT NULL,
    sid text COLLATE "C"
)

-- name: ddl
CREATE INDEX IF NOT EXISTS coatcheck_ended_expires ON coatcheck_ended (expires)

-- name: ddl
CREATE TABLE IF NOT EXISTS coatcheck_fence (
    username text COLLATE "C" PRIMARY KEY,
    moment double precision NOT NULL,
    expires double precision NOT NULL
)

-- name: ddl
CREATE INDEX IF NOT EXISTS coatcheck_fence_expires ON coatcheck_fence (expires)

-- name: ddl
CREATE TABLE IF NOT EXISTS coatcheck_meta (name text PRIMARY KEY, content text NOT NULL)

-- name: set_meta
INSERT INTO coatcheck_meta (name, content) VALUES (%s, %s) ON CONFLICT DO NOTHING

-- name: create
INSERT INTO coatcheck_session (sid, digest, created, seen, deadline, idle, absolute, username, auth_time, rotated, prior_until, grace) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING id

-- name: load
SELECT s.sid, s.created, s.seen, s.deadline, s.idle, s.absolute, s.username, s.auth_time, s.rotated,
       s.prior_until, s.ends, v.app, v.name, v.version, v.data, v.number
FROM coatcheck_session AS s LEFT JOIN coatcheck_value AS v ON v.session = s.id
WHERE s.digest = %s

-- name: find
SELECT id, sid, created, seen, deadline, idle, absolute, username, auth_time, rotated, prior_until, ends,
       grace, digest, prior
FROM coatcheck_session WHERE digest = %s FOR UPDATE

-- name: update
UPDATE coatcheck_session SET
    seen = GREATEST(seen, COALESCE(%s, seen)), deadline = COALESCE(%s, deadline),
    username = COALESCE(%s, username), auth_time = COALESCE(%s, auth_time), prior_until = %s
WHERE id = %s

-- name: rotate
UPDATE coatcheck_session SET digest = %s, prior = %s, prior_until = %s, grace = %s, rotated = %s
WHERE id = %s

-- name: of_user
SELECT id, sid, created, seen, deadline, idle, absolute, username, auth_time, rotated, prior_until, ends,
       grace, digest, prior
FROM coatcheck_session WHERE username = %s ORDER BY created, id

-- name: put
INSERT INTO coatcheck_value AS old (session, app, name, version, data, number) VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (session, app, name) DO UPDATE SET version = excluded.version, data = excluded.data, number = excluded.number
