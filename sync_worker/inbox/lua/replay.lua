-- Put the changes of an open dead letter back into its mailbox (B6.11). They keep their numbers and
-- times of receipt, so that a replay is judged by its old time and never regresses state (B6.10).
--
-- ARGV: id, replay id, wake grace in ms, then number, stored form, ... of its changes
-- Returns {state before, mailbox}; the changes were put back only if that state is 'open'.

local key = 'sw:dead:' .. ARGV[1]
local letter = redis.call('HMGET', key, 'state', 'mailbox', 'replay_id')
if not letter[1] then return {'', ''} end
-- Asked again after a lost answer, it says what it said: this replay put it back.
if letter[1] == 'replaying' and letter[3] == ARGV[2] then return {'open', letter[2]} end
if letter[1] ~= 'open' then return {letter[1], letter[2]} end
local now = now_ms()
local mailbox = letter[2]
redis.call('HSET', key, 'state', 'replaying', 'replay_id', ARGV[2], 'replayed_at', now)
for i = 4, #ARGV, 2 do redis.call('HSET', 'sw:box:' .. mailbox, ARGV[i], ARGV[i + 1]) end
local lease = redis.call('HGET', 'sw:work:' .. mailbox, 'until')
if lease and tonumber(lease) > now then
  redis.call('HSET', 'sw:work:' .. mailbox, 'urgent', '1')
else
  redis.call('HDEL', 'sw:work:' .. mailbox, 'failures')
  set_due(mailbox, now, now + tonumber(ARGV[3]))
end
return {'open', mailbox}
