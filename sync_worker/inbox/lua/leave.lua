-- Have beat wake these mailboxes at once: the wake-ups that were to go out for them did not.
--
-- ARGV: mailbox ...

local now = now_ms()
for i = 1, #ARGV do
  if redis.call('ZSCORE', 'sw:due', ARGV[i]) then redis.call('ZADD', lane_of(ARGV[i]), 'LT', now, ARGV[i]) end
end
return 0
