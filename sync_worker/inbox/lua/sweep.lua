-- Note how a sweep of all customers goes, also in a full store, which only it may help to drain (B6.12).
--
-- ARGV: step, account, token, then
--   begin       how long a sweep is taken to run without a sign of it, in ms; 'asked' if it is the turn of
--               what waits for one, else ''
--   seen        the same, customers seen so far, how many there are in all or ''
--   incomplete  (it did not see every customer)
--   end         (whatever came of it)
-- Returns for begin the time in ms, 0 if another one sweeps; else 0.

local step, account, token = ARGV[1], ARGV[2], ARGV[3]
local key, lease = 'sw:sweep:' .. account, 'sw:sweep:lease'
if step == 'begin' then
  if not redis.call('SET', lease, token, 'NX', 'PX', ARGV[4]) then return 0 end
  local now = now_ms()
  redis.call('HSET', key, 'running', now)
  if ARGV[5] == 'asked' then redis.call('HSET', key, 'attempted', now) end
  return now
elseif step == 'seen' then
  redis.call('HSET', key, 'seen', ARGV[5], 'total', ARGV[6])
  redis.call('PEXPIRE', lease, ARGV[4])
elseif step == 'incomplete' then
  redis.call('HINCRBY', key, 'incomplete', 1)
elseif redis.call('GET', lease) == token then
  redis.call('DEL', lease)
  redis.call('HDEL', key, 'running', 'seen', 'total')
end
return 0
