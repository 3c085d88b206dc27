-- A Delta. ARGV from 4: version, activity, how many there are of puts and of increments, and a word where there is more;
-- then puts (field, version before, content) and increments (field, amount). What more there can be follows these:
-- deadline, auth_time, user, note, everything, how many there are of drops, clears and spares, then drops (field, version
-- before), clears and spares. An empty text is "no"; a user and a note have a letter in front, and so has activity that
-- is recorded only if it is due.
local version, puts, adds = ARGV[4], tonumber(ARGV[6]), tonumber(ARGV[7])
local FIRST_PUT = 9
local first_add = FIRST_PUT + 3 * puts

-- The moment of the activity that has to be recorded, or nil. Behind a `~` it has to be only once it is due.
local function touch_after(seen, idle)
  if string.sub(ARGV[5], 1, 1) ~= '~' then return tonumber(ARGV[5]) end
  local moment = tonumber(string.sub(ARGV[5], 2))
  return seen + math.min(MAX_TOUCH_INTERVAL, idle / TOUCHES_PER_IDLE) <= moment and moment or nil
end
