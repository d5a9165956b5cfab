-- Lease further mailboxes for a convergence, due or not, all or none (B5.3).
--
-- ARGV: mailbox that was claimed, token, lease in ms, further mailbox ...
-- Returns {'lost'} if the claim is; {'busy'} if one of them is being worked on; else {'joined', now,
-- {mailbox, due before or '', box, work, marks, survivor, merged}, ...}. `survivor` is what is left of
-- the record, itself if it was not merged; `merged` all that was merged into that.

local mailbox, token, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
if lease_lost(mailbox, token) then return {'lost'} end
local now = now_ms()
for i = 4, #ARGV do
  local work = redis.call('HMGET', 'sw:work:' .. ARGV[i], 'token', 'until')
  if work[1] and work[1] ~= token and tonumber(work[2]) > now then return {'busy'} end
end
local answer = {'joined', now}
for i = 4, #ARGV do
  local other = ARGV[i]
  local key = 'sw:work:' .. other
  local due = redis.call('ZSCORE', 'sw:due', other) or ''
  note_vanished(other, token, now)
  redis.call('HSET', key, 'token', token, 'until', now + lease_ms)
  redis.call('HDEL', key, 'urgent')
  -- Also an empty one: what comes while it is held waits for this moment if its holder vanishes.
  set_due(other, now + lease_ms, now + lease_ms)
  local survivor = survivor_of(other)
  answer[#answer + 1] = {other, due, redis.call('HGETALL', 'sw:box:' .. other), redis.call('HGETALL', key),
    redis.call('HGETALL', 'sw:mark:' .. other), survivor, merged_into(survivor)}
end
return answer
