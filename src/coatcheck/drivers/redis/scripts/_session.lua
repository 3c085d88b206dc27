-- What all scripts of a session share. INDEXED is set in front of all: true where the index by user is in reach.
-- Every script reads and decides first and writes last: the server undoes nothing of a script that fails. What fails
-- even so (a command or a key that the user may not have, a key of another type) has to leave no session that the index
-- does not know or that the server never collects: so the index is written first, a limit before what it limits, and
-- the head, without which there is no session, last.
--
-- Keys, after `base`:  d:<digest>  the session (a hash), or what is left of one: a mark
--                      s:<sid>     the digest under which the session is filed now
--                      {u:<user>}:u  the index: sids by the last moment at which they can be alive
--                      {u:<user>}:f  the fence: when the user was last revoked, and the sid that was kept
-- Fields of a session: h  the head;  n  the note;  w  the mark of its creation, which waits to be confirmed;
--                      l  the mark of a log-in that is about to be written;  <n>:<app><key>  a value
-- Field of a mark:     m  kind (g in grace, r rotated away, x revoked), when it ends, the sid

local function digest_key(of) return base .. 'd:' .. of end
local function sid_key(sid) return base .. 's:' .. sid end
local function user_key(user) return base .. '{u:' .. user .. '}:' end

-- A head as a table, or nil where it makes no sense.
local function parsed(raw)
  local ok, created, seen, deadline, idle, absolute, auth, rotated, ends, grace, flags, prior, sid, at =
    pcall(struct.unpack, HEAD, raw)
  if not ok then return nil end
  return {
    created = created, seen = seen, deadline = deadline, idle = idle, absolute = absolute,
    auth = flags % 2 == 1 and auth or nil, rotated = rotated, ends = ends, grace = grace,
    prior = prior, sid = sid, user = flags >= 2 and string.sub(raw, at) or nil,
  }
end

local function packed(head)
  local flags = (head.auth and 1 or 0) + (head.user and 2 or 0)
  return struct.pack(HEAD, head.created, head.seen, head.deadline, head.idle, head.absolute, head.auth or 0,
    head.rotated, head.ends, head.grace, flags, #head.prior, head.prior, #head.sid, head.sid) .. (head.user or '')
end

local function login_of(head) return head.auth or head.created end
local function last_end(head) return math.min(login_of(head) + head.absolute, NEVER) end
local function expires(head)
  return math.min(head.deadline, head.seen + head.idle, login_of(head) + head.absolute)
end

-- Let the server collect a key some time after the moment `ends`, as the caller's clock has it.
local function keep(key, ends)
  if ends >= NEVER then
    redis.call('PERSIST', key)
  else
    redis.call('PEXPIRE', key, string.format('%.0f', (math.max(ends - now, 0) + SLACK) * 1000))
  end
end

local function keep_session(head)
  local ends = expires(head)
  keep(digest_key(head.digest), ends)
  keep(sid_key(head.sid), ends)
  if head.prior ~= '' then keep(digest_key(head.prior), ends) end
end

local function mark(of, kind, ends, sid)
  local key = digest_key(of)
  redis.call('UNLINK', key)
  redis.call('HSET', key, 'm', kind .. struct.pack('<d', ends) .. sid)
  return key
end

-- The reply to a read; nothing where the key holds something else than ours do. Any other error ends the script.
local function read(...)
  local got = redis.pcall(...)
  if type(got) ~= 'table' or not got.err then return got end
  if string.find(got.err, 'WRONGTYPE', 1, true) then return nil end
  return redis.call(...)
end

-- The session of a sid, alive or not; nil where there is none that makes sense. Second: the key of its head.
local function by_sid(sid)
  local at = read('GET', sid_key(sid))
  if not at then return nil end
  local got = read('HMGET', digest_key(at), 'h', 'w', 'n')
  local head = got and got[1] and parsed(got[1])
  if not head or head.sid ~= sid then return nil, at end
  head.digest, head.waiting, head.note = at, got[2], got[3] or ''
  return head, at
end

-- The live session that a digest opens; or nil, the reason, and the session that the digest has to do with.
local function find(of)
  local got = read('HMGET', digest_key(of), 'h', 'm', 'w')
  if not got then return nil, 'unreadable' end
  if got[1] then
    local head = parsed(got[1])
    if not head then return nil, 'unreadable' end
    head.digest, head.waiting = of, got[3]
    if expires(head) <= now then return nil, 'expired', head end
    return head
  end
  if not got[2] then return nil, 'unknown' end
  local ok, kind, ends, at = pcall(struct.unpack, '<c1d', got[2])
  if not ok then return nil, 'unknown' end
  if kind ~= 'g' then
    if ends <= now then return nil, 'unknown' end
    if kind == 'x' then return nil, 'revoked' end
    return nil, 'rotated', (by_sid(string.sub(got[2], at)))
  end
  local head = by_sid(string.sub(got[2], at))
  if not head or head.prior ~= of then return nil, 'unknown' end
  if expires(head) <= now then return nil, 'expired', head end
  if head.ends > now then
    head.by_prior = true
    return head
  end
  return nil, head.ends + TOMBSTONE > now and 'rotated' or 'unknown', head
end

-- End a session for good. Its digests say so for a minute.
local function bury(head)
  keep(mark(head.digest, 'x', now + TOMBSTONE, ''), now + TOMBSTONE)
  if head.prior ~= '' and head.ends + TOMBSTONE > now then
    keep(mark(head.prior, 'x', now + TOMBSTONE, ''), now + TOMBSTONE)
  end
  redis.call('UNLINK', sid_key(head.sid))
  if INDEXED and head.user then redis.call('ZREM', user_key(head.user) .. 'u', head.sid) end
end

-- What stands in the way of a new session or token under a digest: a reason, 'taken', or nil.
local function in_the_way(of)
  local head, reason = find(of)
  if reason == 'rotated' or reason == 'revoked' then return reason end
  if redis.call('EXISTS', digest_key(of)) == 0 then return nil end
  if reason == 'unknown' and redis.call('HGET', digest_key(of), 'm') then
    local kind = string.sub(redis.call('HGET', digest_key(of), 'm'), 1, 1)
    if kind ~= 'g' then return nil end
  end
  return 'taken'
end

-- A session that was created with a user waits for its confirmation before anything else is written.
local function first_confirm(head)
  if INDEXED or not head.waiting then return nil end
  return {'confirm', packed(head), head.waiting}
end
