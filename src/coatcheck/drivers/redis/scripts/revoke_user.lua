-- ARGV from 4: the user, the sid to keep. On one server, all in one step.
local users = user_key(ARGV[4])
local listed, ended = redis.call('ZRANGE', users .. 'u', 0, -1), 0
raise_fence(users .. 'f', now, ARGV[5])
for _, sid in ipairs(listed) do
  local head, current = by_sid(sid)
  if sid == ARGV[5] then
    head = nil
  elseif head and head.user == ARGV[4] then
    if expires(head) > now then ended = ended + 1 end
    bury(head)
  elseif current and not head then
    keep(mark(current, 'x', now + TOMBSTONE, ''), now + TOMBSTONE)
    redis.call('UNLINK', sid_key(sid))
  end
  if sid ~= ARGV[5] then redis.call('ZREM', users .. 'u', sid) end
end
return ended
