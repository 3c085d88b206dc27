-- Cluster, the session's slot. ARGV from 4: sid, the log-in that waits, 1 to confirm it or 0 to end the session.
-- Gives 0 where the session has ended.
local head = by_sid(ARGV[4])
if not head then return 0 end
if head.waiting ~= ARGV[5] then return 1 end  -- somebody else saw to it
if ARGV[6] == '1' then
  redis.call('HDEL', digest_key(head.digest), 'w')
  return 1
end
bury(head)
return 0
