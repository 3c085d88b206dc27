local base, digest, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
local NEVER, TOMBSTONE, USER_FENCE, CLOCK_SKEW, SLACK = 253402300800, 60, 3600, 300, 3600
local MAX_TOUCH_INTERVAL, TOUCHES_PER_IDLE = 900, 20
local HEAD = '<dddddddddBBc0Bc0'
local ABSENT = string.rep('\0', 8)

-- The moment of the activity in ARGV[5] that has to be recorded, or nil. Behind a `~` it has to be only once it is due.
local function touch_after(seen, idle)
  if string.sub(ARGV[5], 1, 1) ~= '~' then return tonumber(ARGV[5]) end
  local moment = tonumber(string.sub(ARGV[5], 2))
  return seen + math.min(MAX_TOUCH_INTERVAL, idle / TOUCHES_PER_IDLE) <= moment and moment or nil
end
