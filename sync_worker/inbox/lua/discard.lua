-- Close an open dead letter that nobody will apply, and forget what its changes said (B10.2).
--
-- ARGV: id, discard id
-- Returns the state before, '' if it is not there; it was discarded only if that is 'open'.

local key = 'sw:dead:' .. ARGV[1]
local letter = redis.call('HMGET', key, 'state', 'discard_id')
-- Asked again after a lost answer, it says what it said.
if letter[1] == 'discarded' and letter[2] == ARGV[2] then return 'open' end
if letter[1] ~= 'open' then return letter[1] or '' end
close_dead_letter(ARGV[1], 'discarded', now_ms())
redis.call('HSET', key, 'discard_id', ARGV[2], 'next_step', '')
redis.call('DEL', key .. ':changes', key .. ':attempts')
return 'open'
