-- Tell a gate what became of a call to its remote system (B6.3, B6.4).
--
-- ARGV: gate, verdict, of whom (or ''), why, failures in a row that open the circuit, of how many
--       different ones, ms until the circuit is probed, ms until refused credentials are
--   verdict  alive    it answered, whatever it said
--            failed   no connection, a time-out, a 5xx
--            refused  it refuses the credentials
--            proven   a probe that began while the gate was shut succeeded
--            doubted  a probe did not, nor did it fail as in an outage: what answers is not that system
-- Returns 1 if the gate is shut now, else 0.

local gate, verdict, whom, why = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local key = 'sw:gate:' .. gate
local now = now_ms()

local function shut(kind, probe_ms)
  if redis.call('HSETNX', key, kind, now .. '|' .. why) == 1 then
    redis.call('HSET', key, 'probe_at', now + tonumber(probe_ms))
    count('gates_shut|' .. gate .. '|' .. kind, 1)
  end
end

if verdict == 'failed' then
  local streak = redis.call('HINCRBY', key, 'streak', 1)
  if whom ~= '' then
    redis.call('SADD', key .. ':whom', whom)
    redis.call('EXPIRE', key .. ':whom', 86400)
  end
  if streak >= tonumber(ARGV[5]) and redis.call('SCARD', key .. ':whom') >= tonumber(ARGV[6]) then
    shut('open', ARGV[7])
  end
elseif verdict == 'doubted' then
  shut('open', ARGV[7])
else
  redis.call('HDEL', key, 'streak', 'open')
  redis.call('DEL', key .. ':whom')
  if verdict == 'refused' then shut('refused', ARGV[8]) end
  if verdict == 'proven' and redis.call('HDEL', key, 'refused') == 1 then
    redis.call('HINCRBY', key, 'lifted', 1)
  end
end
return is_shut(gate) and 1 or 0
