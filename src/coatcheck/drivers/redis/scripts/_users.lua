-- The fence and the index of a user. `fence` and `index` are their keys.

local function is_fenced(fence, login, sid)
  local said = redis.call('GET', fence)
  if not said then return false end
  local at, kept = string.match(said, '^(%S+) ?(.*)$')
  at = tonumber(at)
  -- what lies further ahead than clocks may differ was dated by a wrong one
  return at ~= nil and login <= at and at - CLOCK_SKEW <= now and now < at + USER_FENCE and (sid == nil or kept ~= sid)
end

-- Put a session into the index, until the moment `ends` at least; forget those that can be alive no more.
local function enlist(index, sid, ends)
  local left = redis.call('PTTL', index)
  redis.call('ZADD', index, 'GT', string.format('%.17g', ends), sid)
  redis.call('ZREMRANGEBYSCORE', index, '-inf', string.format('(%.17g', now - SLACK))
  if left == -1 then return end
  if ends >= NEVER then
    redis.call('PERSIST', index)
  else
    local wanted = (math.max(ends - now, 0) + SLACK) * 1000
    redis.call('PEXPIRE', index, string.format('%.0f', math.max(wanted, left)))
  end
end

-- Whether it is time to look through an index for sessions that have ended: each time that it has grown by so many.
local function is_crowded(index)
  return redis.call('ZCARD', index) % 64 == 0
end

local function thin_out(index)
  for _, sid in ipairs(redis.call('ZRANGE', index, 0, -1)) do
    if redis.call('EXISTS', sid_key(sid)) == 0 then redis.call('ZREM', index, sid) end
  end
end

local function raise_fence(fence, at, kept)
  local said = redis.call('GET', fence)
  if said then
    local before, other = string.match(said, '^(%S+) ?(.*)$')
    before = tonumber(before)
    if before and before - CLOCK_SKEW <= now and now < before + USER_FENCE then
      if other ~= kept then kept = '' end  -- whom one of two revocations did not keep, nobody kept
      at = math.max(at, before)
    end
  end
  redis.call('PERSIST', fence)  -- a server whose memory is full takes what follows a write that needs none
  redis.call('SET', fence, string.format('%.17g %s', at, kept))
  redis.call('PEXPIRE', fence, string.format('%.0f', (math.max(at - now, 0) + USER_FENCE + SLACK) * 1000))
end
