-- What is left under a digest, and all that is stored of the session that it once opened.
local got = read('HMGET', digest_key(digest), 'h', 'm') or {}
local raw = got[2] or ''
local ok, kind, _, at = pcall(struct.unpack, '<c1d', raw)
if not ok or kind == 'x' then return {raw, {}} end
local head, current = by_sid(string.sub(raw, at))
if not head then return {raw, {}} end
return {raw, redis.call('HGETALL', digest_key(current))}
