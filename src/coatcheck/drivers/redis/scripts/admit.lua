-- Cluster, the user's slot. ARGV from 4: user, sid, moment of the log-in, until when it is to be listed, and '' where
-- the session is not written yet. Gives 1 where the log-in may stand, and lists it; else 0.
local users = user_key(ARGV[4])
local sid = ARGV[5]
if is_fenced(users .. 'f', tonumber(ARGV[6]), ARGV[8] ~= '' and sid or nil) then return 0 end
enlist(users .. 'u', sid, tonumber(ARGV[7]))
return 1
