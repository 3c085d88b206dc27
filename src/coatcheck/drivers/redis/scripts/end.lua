-- End sessions of a user. ARGV from 4: the user, the sid to keep, then sids. Gives how many were alive.
local ended = 0
for at = 6, #ARGV do
  local sid = ARGV[at]
  if sid ~= ARGV[5] then
    local head, current = by_sid(sid)
    if head and head.user == ARGV[4] then
      if expires(head) > now then ended = ended + 1 end
      bury(head)
    elseif head then
      redis.call('HDEL', digest_key(current), 'l')  -- a log-in that is about to be written has to ask again
    elseif current then  -- what makes no sense ends too
      keep(mark(current, 'x', now + TOMBSTONE, ''), now + TOMBSTONE)
      redis.call('UNLINK', sid_key(sid))
    end
  end
end
return ended
