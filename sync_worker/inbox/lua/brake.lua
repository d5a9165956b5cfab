-- Count releases against the brake, or hold the mailbox back (B5.10).
--
-- ARGV: mailbox, token, releases allowed in an hour, what is held as JSON, release ...
--   release  a name that is the same each time the plan is made
-- Returns 1 if they may be made, 0 if they are held until somebody approves, -1 if the lease is lost.

local mailbox, token, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
if lease_lost(mailbox, token) then return -1 end
local work_key = 'sw:work:' .. mailbox
local brake = redis.call('HGET', work_key, 'brake')
if brake == 'approved' then return 1 end
local now = now_ms()
redis.call('ZREMRANGEBYSCORE', 'sw:releases', '-inf', now - 3600000)
local more = 0
for i = 5, #ARGV do
  if not redis.call('ZSCORE', 'sw:releases', ARGV[i]) then more = more + 1 end
end
if brake ~= 'held' and redis.call('ZCARD', 'sw:releases') + more <= limit then
  for i = 5, #ARGV do redis.call('ZADD', 'sw:releases', now, ARGV[i]) end
  return 1
end
local held = cjson.decode(ARGV[4])
local before = redis.call('HGET', 'sw:held', mailbox)
if before then
  before = cjson.decode(before)
  held.id, held.since = before.id, before.since
else
  held.id, held.since = tostring(redis.call('INCR', 'sw:held:seq')), now
  count('releases_held', 1)
end
redis.call('HSET', 'sw:held', mailbox, cjson.encode(held))
redis.call('HSET', work_key, 'brake', 'held')
return 0
