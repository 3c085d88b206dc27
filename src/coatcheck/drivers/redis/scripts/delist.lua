-- Cluster, the user's slot. ARGV from 4: the user, then sids with their scores in turn. Takes them off the index where
-- nobody has listed them anew since the scores were read.
local index = user_key(ARGV[4]) .. 'u'
local listed, scores = redis.call('ZRANGE', index, 0, -1, 'WITHSCORES'), {}
for at = 1, #listed, 2 do scores[listed[at]] = listed[at + 1] end
for at = 5, #ARGV, 2 do
  if scores[ARGV[at]] == ARGV[at + 1] then redis.call('ZREM', index, ARGV[at]) end
end
return 1
