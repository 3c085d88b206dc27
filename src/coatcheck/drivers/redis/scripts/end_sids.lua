-- End the sessions with some sids. ARGV from 4: 'u' and the user that they have to be of, or '' for any; then the sids.
-- Gives how many were alive.
local ended = 0
for at = 5, #ARGV do
  local head = by_sid(ARGV[at])
  if head and (ARGV[4] == '' or (head.user and 'u' .. head.user == ARGV[4])) then
    if expires(head) > now then ended = ended + 1 end
    bury(head)
  end
end
return ended
