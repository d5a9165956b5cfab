-- Put a claimed mailbox back, due later; nothing of it is settled (B6.8).
--
-- ARGV: mailbox, token, delay in ms, failures so far, attempts (JSON), '1' if the
--       answer to a write was lost else '', customer to give back ...
-- Returns -1 if the lease is lost, else when it is due in ms. An urgent change that came meanwhile
-- makes it due now and restarts its schedule.

local mailbox, token, delay_ms, failures, attempts = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
if lease_lost(mailbox, token) then return -1 end
local now = now_ms()
local work_key = 'sw:work:' .. mailbox
local customers = {}
for i = 7, #ARGV do customers[#customers + 1] = ARGV[i] end
release_customers(customers, token, ARGV[6] == '1')

local due, wake = now + delay_ms, now + delay_ms
if redis.call('HGET', work_key, 'urgent') then
  due, wake, failures = now, now, '0'
end
redis.call('HDEL', work_key, 'token', 'until', 'urgent')
redis.call('HSET', work_key, 'failures', failures, 'attempts', attempts)
set_due(mailbox, due, wake)
return due
