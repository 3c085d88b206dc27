-- Cluster, the session's slot. The last of ARGV: the mark of a log-in that is about to be written into a live session.
-- A request that ends the user's sessions in between removes the mark. Returns the head.
local head, reason = find(digest)
if not head then return {'gone', reason} end
local waiting = first_confirm(head)
if waiting then return waiting end
redis.call('HSET', digest_key(head.digest), 'l', ARGV[4])
return {'head', packed(head)}
