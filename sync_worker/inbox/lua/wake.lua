-- Name the due mailboxes that nobody has woken (B6.7), and take them as woken for the grace time,
-- so that a second beat does not name them again.
--
-- ARGV: how many at most, wake grace in ms
-- Returns their names.

local now = now_ms()
local mailboxes = redis.call('ZRANGEBYSCORE', 'sw:wake', '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))
for _, mailbox in ipairs(mailboxes) do
  redis.call('ZADD', 'sw:wake', now + tonumber(ARGV[2]), mailbox)
end
return mailboxes
