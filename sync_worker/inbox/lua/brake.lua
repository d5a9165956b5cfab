-- Count releases against the brake, or hold the mailbox back (B5.10).
--
-- ARGV: mailbox, token, releases allowed in an hour, what is held as JSON, release ...
--   release  a name that is the same each time the plan is made
-- Returns 1 if they may be made, 0 if they are held until somebody rules on them, 2 if somebody has
-- discarded them, -1 if the lease is lost. A ruling is about these very releases: of others, nobody
-- has seen anything.

local mailbox, token, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
if lease_lost(mailbox, token) then return -1 end
local work_key = 'sw:work:' .. mailbox
local names = {}
for i = 5, #ARGV do names[#names + 1] = ARGV[i] end
table.sort(names)
local these = table.concat(names, ' ')
local brake = redis.call('HGET', work_key, 'brake')
if brake == 'approved ' .. these then return 1 end
if brake == 'discarded ' .. these then return 2 end

local now = now_ms()
redis.call('ZREMRANGEBYSCORE', 'sw:releases', '-inf', now - 3600000)
local more = 0
for _, name in ipairs(names) do
  if not redis.call('ZSCORE', 'sw:releases', name) then more = more + 1 end
end
if brake ~= 'held ' .. these and redis.call('ZCARD', 'sw:releases') + more <= limit then
  for _, name in ipairs(names) do redis.call('ZADD', 'sw:releases', now, name) end
  redis.call('HDEL', 'sw:held', mailbox)
  return 1
end
local held = cjson.decode(ARGV[4])
local before = redis.call('HGET', 'sw:held', mailbox)
before = before and cjson.decode(before)
if before and before.releases == these then
  held.id, held.since = before.id, before.since
else
  held.id, held.since = tostring(redis.call('INCR', 'sw:held:seq')), now
  count('releases_held', 1)
end
held.releases = these
redis.call('HSET', 'sw:held', mailbox, cjson.encode(held))
redis.call('HSET', work_key, 'brake', 'held ' .. these)
return 0
