-- A sweep of all customers has ended: wake what waited for one that began no earlier than it asked.
--
-- ARGV: account, when the sweep began (ms), customers seen, slot that could not be seen ...
-- Returns the mailboxes that are due now.

local begun, now, woken = tonumber(ARGV[2]), now_ms(), {}
redis.call('HSET', 'sw:sweep:' .. ARGV[1], 'begun', ARGV[2], 'ended', now, 'customers', ARGV[3])
redis.call('HDEL', 'sw:sweep:' .. ARGV[1], 'blind', 'running', 'seen', 'total')
if #ARGV > 3 then redis.call('HSET', 'sw:sweep:' .. ARGV[1], 'blind', table.concat(ARGV, ' ', 4)) end
for _, mailbox in ipairs(redis.call('ZRANGEBYSCORE', 'sw:sweep:waiting', '-inf', begun)) do
  redis.call('ZREM', 'sw:sweep:waiting', mailbox)
  if is_leased(mailbox, now) then
    redis.call('HSET', 'sw:work:' .. mailbox, 'urgent', '1')  -- it is just being put back to wait
  elseif redis.call('EXISTS', 'sw:box:' .. mailbox) == 1 then
    set_due(mailbox, now, now)  -- no wake-up is under way that beat should wait for
    woken[#woken + 1] = mailbox
  end
end
return woken
