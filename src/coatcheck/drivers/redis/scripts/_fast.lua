-- The usual commit: values put into a live session under its own digest, and nothing else about it changes. It takes
-- half the time of the long way, which begins after this. Whatever is not as usual goes there, refusals too.

local function is_done()
  if ARGV[6] ~= '' or ARGV[7] ~= '' or ARGV[8] ~= '' or ARGV[9] ~= '' then return false end
  if ARGV[11] ~= '0' or ARGV[12] ~= '0' or ARGV[13] ~= '0' then return false end
  local key = base .. 'd:' .. digest
  local got = redis.pcall('HMGET', key, 'h', 'w')
  if not got[1] or got[2] then return false end
  local ok, created, seen, deadline, idle, absolute, auth, _, ends, _, flags = pcall(struct.unpack, HEAD, got[1])
  if not ok or ends == NEVER then return false end  -- a first commit under a new digest does more
  if touch_after(seen, idle) then return false end
  local login = flags % 2 == 1 and auth or created
  if math.min(deadline, seen + idle, login + absolute) <= now then return false end
  local last = 12 + 3 * tonumber(ARGV[10])
  for at = 15, last, 3 do
    if ARGV[at + 1] ~= '' then
      local held = redis.call('HGET', key, ARGV[at])
      if ARGV[at + 1] ~= (held and string.sub(held, 1, 8) or ABSENT) then return false end
    end
  end
  for at = 15, last, 3 do redis.call('HSET', key, ARGV[at], ARGV[at + 2]) end
  return true
end

if is_done() then return 1 end
