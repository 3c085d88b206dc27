-- Cluster, the session's slot. The head of a live session.
local head, reason = find(digest)
if not head then return {'gone', reason} end
return {'head', packed(head)}
