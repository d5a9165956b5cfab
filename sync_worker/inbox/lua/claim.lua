-- Lease a due mailbox and read what it holds (B5.3).
--
-- ARGV: mailbox, token, lease in ms
-- Returns {'claimed', now, box, work, marks, survivor, merged, definitions} (box, work and marks flat:
-- field, value, ...; survivor and merged: see join), or {'empty'} | {'leased'} | {'early'}.

local mailbox, token, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now = now_ms()
local work_key = 'sw:work:' .. mailbox
local box = redis.call('HGETALL', 'sw:box:' .. mailbox)

local work = redis.call('HMGET', work_key, 'token', 'until')
if work[1] and work[1] ~= token and tonumber(work[2]) > now then return {'leased'} end
if #box == 0 then
  redis.call('ZREM', 'sw:due', mailbox)
  redis.call('ZREM', 'sw:wake', mailbox)
  redis.call('DEL', work_key)
  return {'empty'}
end
local due = redis.call('ZSCORE', 'sw:due', mailbox)
if due and tonumber(due) > now and work[1] ~= token then return {'early'} end

redis.call('HSET', work_key, 'token', token, 'until', now + lease_ms)
redis.call('HDEL', work_key, 'urgent')
set_due(mailbox, now + lease_ms, now + lease_ms)
local survivor = survivor_of(mailbox)
return {'claimed', now, box, redis.call('HGETALL', work_key), redis.call('HGETALL', 'sw:mark:' .. mailbox),
  survivor, merged_into(survivor), redis.call('SMEMBERS', 'sw:definitions')}
