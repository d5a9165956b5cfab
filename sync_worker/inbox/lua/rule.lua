-- Say what becomes of a release that is held (B5.10).
--
-- ARGV: mailbox, 'approved' or 'discarded', wake grace in ms
-- Returns 1 if it was held.

local mailbox = ARGV[1]
if redis.call('HEXISTS', 'sw:held', mailbox) == 0 then return 0 end
redis.call('HDEL', 'sw:held', mailbox)
redis.call('HSET', 'sw:work:' .. mailbox, 'brake', ARGV[2])
urge(mailbox, now_ms(), tonumber(ARGV[3]))
return 1
