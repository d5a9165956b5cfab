-- Gates: what became of calls to a remote system, and whether work that needs it is to wait (B6.3, B6.4).

-- Take in what a call told. `report` is {gate, verdict, of whom (or ''), why, failures in a row that open
-- the circuit, of how many different ones, ms until the circuit is probed, ms until refused credentials
-- are, how often credentials had been renewed when those of the call were read, when a probe began (ms)}
--   verdict  alive    it answered, whatever it said
--            sound    it answered as it should
--            failed   no connection, a time-out, a 5xx
--            refused  it refuses the credentials
--            proven   a probe succeeded
--            paused   an operator has everything wait
-- Returns whether the gate is shut now.
local function tell_gate(report)
  local gate, verdict, whom, why, failures, different, open_ms, refused_ms, renewed, began = unpack(report)
  local key = 'sw:gate:' .. gate
  local state = redis.call('HMGET', key, 'open', 'refused', 'paused', 'streak', 'probe_at')
  local is_well = verdict == 'sound' or verdict == 'alive'
  if is_well and not (state[1] or state[2] or state[3] or state[4] or state[5]) then
    if verdict == 'sound' then redis.call('DEL', key .. ':doubt') end
    return false
  end
  local now = now_ms()

  local function shut(kind, probe_ms)
    if redis.call('HSETNX', key, kind, now .. '|' .. why) == 0 then return end
    redis.call('HSET', key, 'probe_at', math.max(tonumber(state[5] or 0), now + probe_ms))
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
    if streak >= failures and redis.call('SCARD', key .. ':whom') >= different then shut('open', open_ms) end
  else
    redis.call('HDEL', key, 'streak', 'open')
    redis.call('DEL', key .. ':whom')
    if verdict == 'sound' or verdict == 'proven' then redis.call('DEL', key .. ':doubt') end
    if verdict == 'refused' then
      -- Credentials that were renewed since are not the ones that it refuses.
      if tonumber(redis.call('GET', 'sw:renewed') or 0) == renewed then shut('refused', refused_ms) end
    elseif verdict == 'proven' then
      if state[2] and tonumber(string.match(state[2], '^%d+')) <= began then
        redis.call('HDEL', key, 'refused')
        redis.call('INCR', 'sw:renewed')
      end
    end
    if not is_shut(gate) then redis.call('HDEL', key, 'probe_at') end
  end
  return is_shut(gate) and true or false
end
