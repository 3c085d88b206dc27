-- ARGV[4]: the user. The heads and notes of the sessions that the index names; the index loses what is not there.
local index = user_key(ARGV[4]) .. 'u'
local found = {}
for _, sid in ipairs(redis.call('ZRANGE', index, 0, -1)) do
  local head = by_sid(sid)
  if head and head.user == ARGV[4] then
    found[#found + 1] = {packed(head), head.note}
  else
    redis.call('ZREM', index, sid)
  end
end
return found
