-- For each sid from ARGV[4] on: its head, its note and the log-in that waits, or nothing.
local found = {}
for at = 4, #ARGV do
  local head = by_sid(ARGV[at])
  found[#found + 1] = head and {packed(head), head.note, head.waiting or ''} or ''
end
return found
