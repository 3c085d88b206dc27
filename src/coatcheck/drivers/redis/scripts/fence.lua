-- Cluster, the user's slot. ARGV from 4: user, the sid to keep. Sets the fence and gives the index.
local users = user_key(ARGV[4])
local listed = redis.call('ZRANGE', users .. 'u', 0, -1)
raise_fence(users .. 'f', now, ARGV[5])
return listed
