-- Take the turn to probe a remote system whose gate is shut; one at a time has it (B6.3, B6.4).
--
-- ARGV: gate, token, how long a probe may take in ms, ms between probes of an open circuit, ms between
--       probes of refused credentials
-- Returns the time in ms if the turn is taken, else 0.

local gate = ARGV[1]
local key = 'sw:gate:' .. gate
local state = redis.call('HMGET', key, 'open', 'refused', 'probe_at')
local now = now_ms()
if not (state[1] or state[2]) or tonumber(state[3] or 0) > now then return 0 end
if not redis.call('SET', key .. ':probe', ARGV[2], 'NX', 'PX', tonumber(ARGV[3])) then return 0 end
redis.call('HSET', key, 'probe_at', now + tonumber(state[2] and ARGV[5] or ARGV[4]))
return now
