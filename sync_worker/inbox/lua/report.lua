-- Tell a gate what became of a call to its remote system (B6.3, B6.4).
--
-- ARGV: gate, verdict, of whom (or ''), why, failures in a row that open the circuit, of how many
--       different ones, ms until the circuit is probed, ms until refused credentials are, how often
--       credentials had been renewed when those of the call were read, when a probe began in ms
--   verdict  alive    it answered, whatever it said
--            sound    it answered as it should
--            failed   no connection, a time-out, a 5xx
--            refused  it refuses the credentials
--            proven   a probe succeeded
--            paused   an operator has everything wait
-- Returns 1 if the gate is shut now, else 0.

local gate, verdict, whom, why = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local key = 'sw:gate:' .. gate
local now = now_ms()

local function shut(kind, probe_ms)
  if redis.call('HSETNX', key, kind, now .. '|' .. why) == 0 then return end
  local probe_at = tonumber(redis.call('HGET', key, 'probe_at') or 0)
  redis.call('HSET', key, 'probe_at', math.max(probe_at, now + tonumber(probe_ms)))
  count('gates_shut|' .. gate .. '|' .. kind, 1)
end

if verdict == 'paused' then
  shut('paused', 0)
elseif verdict == 'failed' then
  local streak = redis.call('HINCRBY', key, 'streak', 1)
  if whom ~= '' then
    redis.call('SADD', key .. ':whom', whom)
    redis.call('EXPIRE', key .. ':whom', 86400)
  end
  if streak >= tonumber(ARGV[5]) and redis.call('SCARD', key .. ':whom') >= tonumber(ARGV[6]) then
    shut('open', ARGV[7])
  end
else
  redis.call('HDEL', key, 'streak', 'open')
  redis.call('DEL', key .. ':whom')
  if verdict == 'sound' or verdict == 'proven' then redis.call('DEL', key .. ':doubt') end
  if verdict == 'refused' then
    -- Credentials that were renewed since are not the ones that it refuses.
    if tonumber(redis.call('GET', 'sw:renewed') or 0) == tonumber(ARGV[9]) then shut('refused', ARGV[8]) end
  elseif verdict == 'proven' then
    local refused = redis.call('HGET', key, 'refused')
    if refused and tonumber(string.match(refused, '^%d+')) <= tonumber(ARGV[10]) then
      redis.call('HDEL', key, 'refused')
      redis.call('INCR', 'sw:renewed')
    end
  end
  if not is_shut(gate) then redis.call('HDEL', key, 'probe_at') end
end
return is_shut(gate) and 1 or 0
