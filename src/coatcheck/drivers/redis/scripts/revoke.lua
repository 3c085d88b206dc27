local head, reason, other = find(digest)
local is_live = head ~= nil
if reason == 'rotated' and other then is_live = expires(other) > now end
head = head or other
keep(mark(digest, 'x', now + TOMBSTONE, ''), now + TOMBSTONE)  -- also for a creation that is still on its way
if head and (is_live or head.digest == digest) then bury(head) end
return is_live and 1 or 0
