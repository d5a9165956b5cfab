-- Lease a due mailbox and read what it holds (B5.3).
--
-- ARGV: mailbox, token, lease in ms, how soon it is woken again if it has to wait for its turn (ms),
--       gates it must pass ...
-- Returns {'claimed', now, box, work, marks, survivor, merged, definitions} (box, work and marks flat:
-- field, value, ...; survivor and merged: see join), or {'empty'} | {'leased'} | {'early'}; {'shut'} if
-- a gate is, which wakes it once it opens (B6.3); {'waits'} if its worker vanished, so that it is next
-- worked on alone, and another one is (B6.6).

local mailbox, token, lease_ms, turn_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
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
if due and tonumber(due) > now and work[1] ~= token then
  redis.call('ZADD', 'sw:wake', due, mailbox)
  return {'early'}
end
for i = 5, #ARGV do
  if is_shut(ARGV[i]) then
    redis.call('ZREM', 'sw:wake', mailbox)
    redis.call('ZADD', 'sw:parked:' .. ARGV[i], now, mailbox)
    return {'shut'}
  end
end
note_vanished(mailbox, token, now)
redis.call('HDEL', work_key, 'alone')
if redis.call('HEXISTS', work_key, 'vanished') == 1 then
  local other = redis.call('GET', 'sw:alone')
  if other and other ~= token then
    redis.call('ZADD', 'sw:wake', now + turn_ms, mailbox)
    return {'waits'}
  end
  redis.call('SET', 'sw:alone', token, 'PX', lease_ms)
  redis.call('HSET', work_key, 'alone', run_id())
end

redis.call('HSET', work_key, 'token', token, 'until', now + lease_ms)
redis.call('HDEL', work_key, 'urgent')
set_due(mailbox, now + lease_ms, now + lease_ms)
local survivor = survivor_of(mailbox)
return {'claimed', now, box, redis.call('HGETALL', work_key), redis.call('HGETALL', 'sw:mark:' .. mailbox),
  survivor, merged_into(survivor), redis.call('SMEMBERS', 'sw:definitions')}
