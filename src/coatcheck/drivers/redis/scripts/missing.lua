-- For each sid from ARGV[4] on one letter: + alive, - dead, w alive and waiting.
local found = {}
for at = 4, #ARGV do
  local head = by_sid(ARGV[at])
  found[#found + 1] = (not head or expires(head) <= now) and '-' or head.waiting and 'w' or '+'
end
return table.concat(found)
