-- Cluster, the user's slot. ARGV from 4: user, sid, moment of the log-in, until when it is to be listed, and how far it
-- is: '' at the first look, 'announced', or 'created' where the session is there. Gives 0 where the log-in may not stand;
-- else lists it and gives 1, or 2 where it is time to look through the list.
local users = user_key(ARGV[4])
local sid, stage = ARGV[5], ARGV[8]
if is_fenced(users .. 'f', tonumber(ARGV[6]), stage == 'created' and sid or nil) then return 0 end
enlist(users .. 'u', sid, tonumber(ARGV[7]))
return stage ~= '' and is_crowded(users .. 'u') and 2 or 1
