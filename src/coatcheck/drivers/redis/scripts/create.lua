-- ARGV from 4: the head, its version, then fields and values in turn.
local reason = in_the_way(digest)
if reason == 'taken' then return {'conflict'} end
if reason then return {'gone', reason} end
local head = parsed(ARGV[4])
head.digest = digest
if redis.call('EXISTS', sid_key(head.sid)) == 1 then return {'conflict'} end
if expires(head) <= now then return {'gone', 'expired'} end
if INDEXED and head.user and is_fenced(user_key(head.user) .. 'f', login_of(head)) then return {'gone', 'revoked'} end
local key = digest_key(digest)
redis.call('UNLINK', key)
redis.call('HSET', key, 'h', ARGV[4])
for at = 6, #ARGV, 2 do redis.call('HSET', key, ARGV[at], ARGV[at + 1]) end
redis.call('SET', sid_key(head.sid), digest)
if head.user then
  if INDEXED then
    local index = user_key(head.user) .. 'u'
    enlist(index, head.sid, last_end(head))
    if is_crowded(index) then thin_out(index) end
  else
    redis.call('HSET', key, 'w', struct.pack('<d', now) .. ARGV[5])
  end
end
keep_session(head)
return 1
