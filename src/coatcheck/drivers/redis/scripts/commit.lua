local head, reason = find(digest)
if not head then return {'gone', reason} end
local waiting = first_confirm(head)
if waiting then return waiting end
local key = digest_key(head.digest)
local is_changed, is_login, before = is_head_changed(head), false, nil
if is_changed then is_login, before = change_head(head) end
local refusal, totals = is_login and refused_login(head), nil
if refusal then return refusal end
refusal, totals = judged(key)
if refusal then return refusal end
if not head.by_prior and head.ends == NEVER then
  head.ends = now + head.grace  -- the client has the new token: the old one's time starts to run
  is_changed = true
end
if is_login then announce(head) end
if is_changed then keep_session(head) end
apply(key, totals)
if is_changed then write_head(head, is_login) end
if is_login then tidy(head, before) end
return done(totals)
