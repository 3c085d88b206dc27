-- The last two of ARGV: the new digest and the grace.
local new, grace = ARGV[#ARGV - 1], tonumber(ARGV[#ARGV])
local head, reason = find(digest)
if not head then return {'gone', reason} end
local waiting = first_confirm(head)
if waiting then return waiting end
if grace > 0 then  -- see rotation_refused in drivers/_rules.py
  if head.by_prior then
    if head.ends < NEVER or head.rotated + grace > now then return {'conflict'} end
  elseif head.ends > now then
    return {'conflict'}
  end
end
if in_the_way(new) then return {'conflict'} end
local key, current = digest_key(head.digest), head.digest
local is_login, before = change_head(head)
local refusal, totals = is_login and refused_login(head), nil
if refusal then return refusal end
refusal, totals = judged(key)
if refusal then return refusal end

-- Of the digests so far, the one that was asked for lives on in a grace, and the others end.
local dead = {}
if head.by_prior then
  dead[1] = {current, now}
elseif head.prior ~= '' then
  dead[1] = {head.prior, math.min(head.ends, now)}  -- it may have been over already
end
if grace <= 0 then dead[#dead + 1] = {digest, now} end

if is_login then announce(head) end
redis.call('SET', sid_key(head.sid), current, 'KEEPTTL')  -- changes nothing: once renamed, this must not be refused
redis.call('RENAME', key, digest_key(new))
redis.call('SET', sid_key(head.sid), new)
for _, each in ipairs(dead) do
  keep(mark(each[1], 'r', each[2] + TOMBSTONE, head.sid), each[2] + TOMBSTONE)
end
head.digest, head.rotated, head.grace = new, now, grace
head.prior, head.ends = '', 0
if grace > 0 then
  head.prior, head.ends = digest, NEVER
  mark(digest, 'g', NEVER, head.sid)
end
keep_session(head)
apply(digest_key(new), totals)
write_head(head, is_login)
if is_login then tidy(head, before) end
return done(totals)
