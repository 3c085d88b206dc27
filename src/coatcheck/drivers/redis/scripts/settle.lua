-- Cluster, the session's slot. ARGV from 4: sid, the log-in that waits, 1 to confirm it or 0 to end the session.
local head = by_sid(ARGV[4])
if not head or head.waiting ~= ARGV[5] then return 0 end  -- somebody else saw to it, or it has ended
if ARGV[6] == '1' then
  redis.call('HDEL', digest_key(head.digest), 'w')
else
  bury(head)
end
return 1
