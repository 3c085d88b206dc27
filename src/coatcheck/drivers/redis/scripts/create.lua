-- ARGV from 4: the head, its version, then fields and values in turn.
local reason = in_the_way(digest)
if reason == 'taken' then return {'conflict'} end
if reason then return {'gone', reason} end
local head = parsed(ARGV[4])
head.digest = digest
if redis.call('EXISTS', sid_key(head.sid)) == 1 then return {'conflict'} end
if expires(head) <= now then return {'gone', 'expired'} end
if INDEXED and head.user and is_fenced(user_key(head.user) .. 'f', login_of(head)) then return {'gone', 'revoked'} end
local key, index = digest_key(digest), INDEXED and head.user and user_key(head.user) .. 'u'
if index then enlist(index, head.sid, last_end(head)) end
redis.call('SET', sid_key(head.sid), digest)
redis.call('UNLINK', key)
redis.call('HSET', key, 'h', '')  -- nothing that opens, until all is there
keep_session(head)
for at = 6, #ARGV, 2 do redis.call('HSET', key, ARGV[at], ARGV[at + 1]) end
if head.user and not INDEXED then redis.call('HSET', key, 'w', struct.pack('<d', now) .. ARGV[5]) end
redis.call('HSET', key, 'h', ARGV[4])
if index and is_crowded(index) then thin_out(index) end
return 1
