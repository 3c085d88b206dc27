-- The tables of schema version 1 before the first migration, and statements that programs with them send: mariadb.

-- name: ddl
CREATE TABLE IF NOT EXISTS coatcheck_session (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    sid VARBINARY(64) NOT NULL,
    digest BINARY(32) NOT NULL,
    created DOUBLE NOT NULL,
    seen DOUBLE NOT NULL,
    deadline DOUBLE NOT NULL,
    idle DOUBLE NOT NULL,
    absolute DOUBLE NOT NULL,
    username VARBINARY(1020) NULL,
    auth_time DOUBLE NULL,
    rotated DOUBLE NOT NULL,
    prior BINARY(32) NULL,
    prior_until DOUBLE NOT NULL,
    grace DOUBLE NOT NULL,
    ends DOUBLE GENERATED ALWAYS
        AS (LEAST(deadline, seen + idle, COALESCE(auth_time, created) + absolute)) STORED,
    UNIQUE KEY by_sid (sid),
    UNIQUE KEY by_digest (digest),
    UNIQUE KEY by_prior (prior),
    KEY by_ends (ends),
    KEY by_username (username)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC

-- name: ddl
CREATE TABLE IF NOT EXISTS coatcheck_value (
    session BIGINT UNSIGNED NOT NULL,
    app VARBINARY(1020) NOT NULL,
    name VARBINARY(1020) NOT NULL,
    version BIGINT UNSIGNED NOT NULL,
    data LONGBLOB NULL,
    number BIGINT NULL,
    PRIMARY KEY (session, app, name)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC

-- name: ddl
CREATE TABLE IF NOT EXISTS coatcheck_ended (
    digest BINARY(32) NOT NULL PRIMARY KEY,
    reason VARBINARY(20) NOT NULL,
    expires DOUBLE NOT NULL,
    sid VARBINARY(64) NULL,
    KEY by_expires (expires)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC

-- name: ddl
CREATE TABLE IF NOT EXISTS coatcheck_fence (
    username VARBINARY(1020) NOT NULL PRIMARY KEY,
    moment DOUBLE NOT NULL,
    expires DOUBLE NOT NULL,
    KEY by_expires (expires)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC

-- name: ddl
CREATE TABLE IF NOT EXISTS coatcheck_meta (
    name VARBINARY(20) NOT NULL PRIMARY KEY,
    content VARBINARY(100) NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC

-- name: set_meta
INSERT INTO coatcheck_meta (name, content) VALUES (%s, %s)

-- name: create
INSERT INTO coatcheck_session (sid, digest, created, seen, deadline, idle, absolute, username, auth_time, rotated, prior_until, grace) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)

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
INSERT INTO coatcheck_value (session, app, name, version, data, number) VALUES (%s, %s, %s, %s, %s, %s) ON DUPLICATE KEY UPDATE version = VALUES(version), data = VALUES(data), number = VALUES(number)
