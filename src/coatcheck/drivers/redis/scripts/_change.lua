-- What more a Delta can have; see _delta.lua.
local rest = first_add + 2 * adds
local deadline, auth, user, note, everything = '', '', '', '', ''
local drops, clears, spares = 0, 0, 0
if ARGV[8] ~= '' then
  deadline, auth, user, note, everything = unpack(ARGV, rest, rest + 4)
  drops, clears, spares = tonumber(ARGV[rest + 5]), tonumber(ARGV[rest + 6]), tonumber(ARGV[rest + 7])
end
local first_drop = rest + 8
local first_clear = first_drop + 2 * drops
local first_spare = first_clear + clears

-- Version, kind and content of a stored value, or nothing where it makes no sense.
local function value_of(key, field)
  local raw = redis.call('HGET', key, field)
  if not raw or #raw < 9 then return ABSENT end
  local kind = string.sub(raw, 9, 9)
  if kind == 'i' then
    local text = string.sub(raw, 10)
    if #text <= 20 and string.find(text, '^%-?%d+$') then return string.sub(raw, 1, 8), kind, text end
  elseif kind == 'b' then
    return string.sub(raw, 1, 8), kind
  end
  return ABSENT
end

-- Numbers here are doubles, so a 64-bit integer is two of them: thousands of millions, and the rest.
local function split(text)
  local sign, digits = 1, text
  if string.sub(text, 1, 1) == '-' then sign, digits = -1, string.sub(text, 2) end
  return sign * (tonumber(string.sub(digits, 1, -10)) or 0), sign * tonumber(string.sub(digits, -9))
end

-- The sum of two integers in decimal text, or nil where it does not fit 64 signed bits.
local function sum(one, other)
  local high, low = split(one)
  local more, less = split(other)
  high, low = high + more, low + less
  if math.abs(low) >= 1e9 then
    local carry = low > 0 and 1 or -1
    high, low = high + carry, low - carry * 1e9
  end
  if high > 0 and low < 0 then
    high, low = high - 1, low + 1e9
  elseif high < 0 and low > 0 then
    high, low = high + 1, low - 1e9
  end
  local sign = (high < 0 or low < 0) and '-' or ''
  high, low = math.abs(high), math.abs(low)
  if high > 9223372036 or (high == 9223372036 and low > (sign == '-' and 854775808 or 854775807)) then return nil end
  if high > 0 then return sign .. string.format('%.0f%09.0f', high, low) end
  return sign .. string.format('%.0f', low)
end

local function spared()
  local names = {}
  for at = first_spare, first_spare + spares - 1 do names[ARGV[at]] = true end
  return names
end

local function is_cleared(field, spare)
  if field == 'h' or field == 'w' or field == 'n' or spare[field] then return false end
  local length = string.match(field, '^%d+:') -- of the app, whose values are all spared where its name stands alone
  if length and spare[string.sub(field, 1, #length + tonumber(string.sub(length, 1, -2)))] then return false end
  if everything ~= '' then return true end
  for at = first_clear, first_clear + clears - 1 do
    if string.sub(field, 1, #ARGV[at]) == ARGV[at] then return true end
  end
  return false
end

-- Look at the change as a whole: a refusal, or nil and the new texts of the counters. `key` is the session's.
local function judged(key)
  local failed = {}
  for number = 1, puts do
    local at = FIRST_PUT + 3 * (number - 1)
    if ARGV[at + 1] ~= '' and ARGV[at + 1] ~= value_of(key, ARGV[at]) then failed[#failed + 1] = number end
  end
  for number = 1, drops do
    local at = first_drop + 2 * (number - 1)
    if ARGV[at + 1] ~= '' and ARGV[at + 1] ~= value_of(key, ARGV[at]) then failed[#failed + 1] = puts + number end
  end
  if #failed > 0 then return {'conflict', unpack(failed)} end
  local totals = {}
  local spare = adds > 0 and spared()
  for number = 1, adds do
    local at = first_add + 2 * (number - 1)
    local _, kind, held = nil, nil, nil
    if not is_cleared(ARGV[at], spare) then _, kind, held = value_of(key, ARGV[at]) end
    if kind == 'b' then return {'no counter', number} end
    totals[number] = sum(held or '0', ARGV[at + 1])
    if not totals[number] then return {'overflow', number} end
  end
  return nil, totals
end

-- The head with the change in it. Tells whether it is a log-in, and the user before.
local function change_head(head)
  local before = head.user
  head.seen = math.max(head.seen, touch_after(head.seen, head.idle) or 0)
  if deadline ~= '' then head.deadline = tonumber(deadline) end
  if auth ~= '' then head.auth = tonumber(auth) end
  if user ~= '' then head.user = string.sub(user, 2) end
  return head.user and (auth ~= '' or user ~= ''), before
end

local function is_head_changed(head)
  return touch_after(head.seen, head.idle) or deadline ~= '' or auth ~= '' or user ~= ''
end

-- Write the values and the note of a change that was judged.
local function apply(key, totals)
  if clears > 0 or everything ~= '' then
    local spare = spared()
    for _, field in ipairs(redis.call('HKEYS', key)) do
      if is_cleared(field, spare) then redis.call('HDEL', key, field) end
    end
  end
  for number = 1, drops do redis.call('HDEL', key, ARGV[first_drop + 2 * (number - 1)]) end
  for number = 1, puts do
    local at = FIRST_PUT + 3 * (number - 1)
    redis.call('HSET', key, ARGV[at], ARGV[at + 2])
  end
  for number = 1, adds do
    redis.call('HSET', key, ARGV[first_add + 2 * (number - 1)], version .. 'i' .. totals[number])
  end
  if note ~= '' then redis.call('HSET', key, 'n', string.sub(note, 2)) end
end

-- Why a log-in may not be written, or nil. In a cluster it was announced, unless a revocation took that back.
local function refused_login(head)
  if INDEXED then return is_fenced(user_key(head.user) .. 'f', login_of(head)) and {'gone', 'revoked'} or nil end
  local announced = redis.call('HGET', digest_key(head.digest), 'l')
  return announced ~= struct.pack('<d', now) .. version and {'again'} or nil
end

-- What goes ahead of a log-in: the index, where it is in reach.
local function announce(head)
  if INDEXED then enlist(user_key(head.user) .. 'u', head.sid, last_end(head)) end
end

-- Write the head.
local function write_head(head, is_login)
  local key = digest_key(head.digest)
  if is_login and not INDEXED then redis.call('HDEL', key, 'l') end
  redis.call('HSET', key, 'h', packed(head))
end

-- What follows a log-in: the indexes lose what is there no more.
local function tidy(head, before)
  if not INDEXED then return end
  if before and before ~= head.user then redis.call('ZREM', user_key(before) .. 'u', head.sid) end
  local index = user_key(head.user) .. 'u'
  if is_crowded(index) then thin_out(index) end
end

-- The reply to a change that was done.
local function done(totals)
  if adds == 0 then return 1 end
  return {'done', unpack(totals)}
end
