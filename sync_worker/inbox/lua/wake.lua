-- Name the due mailboxes that nobody has woken (B6.7), and take them as woken for the grace time,
-- so that a second beat does not name them again. What waited at a gate that is open again is due first.
--
-- ARGV: how many at most, wake grace in ms, gates ...
-- Returns their names.

local now = now_ms()
for i = 3, #ARGV do
  local parked = 'sw:parked:' .. ARGV[i]
  if not is_shut(ARGV[i]) and redis.call('EXISTS', parked) == 1 then
    redis.call('ZUNIONSTORE', 'sw:wake', 2, 'sw:wake', parked, 'AGGREGATE', 'MIN')
    redis.call('DEL', parked)
  end
end
local mailboxes = redis.call('ZRANGEBYSCORE', 'sw:wake', '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))
for _, mailbox in ipairs(mailboxes) do
  redis.call('ZADD', 'sw:wake', now + tonumber(ARGV[2]), mailbox)
end
return mailboxes
