-- Put the changes of an open dead letter back into its mailbox (B6.11).
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
redis.call('HSET', key, 'state', 'replaying', 'replay_id', ARGV[2], 'replayed_at', now)
local changes = {}
for i = 4, #ARGV do changes[#changes + 1] = ARGV[i] end
put_back(letter[2], changes, now, tonumber(ARGV[3]), 'replay')
return {'open', letter[2]}
