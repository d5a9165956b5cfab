-- Take or renew the lease of a mailbox and of all the customers it concerns: all or none (B5.3).
-- A customer about to be written is suspect from here on: if the answer is lost, or the worker
-- vanishes, the write may still land, until `suspect` ms have passed.
--
-- ARGV: mailbox, token, lease in ms, suspect in ms, customer to be written or '', customer ...
-- Returns the store's clock in microseconds if all are held, 0 if a customer is held by another
-- mailbox, -1 if the mailbox's lease is lost.

local mailbox, token, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
if lease_lost(mailbox, token) then return -1 end
for i = 6, #ARGV do
  local holder = redis.call('GET', 'sw:lease:' .. ARGV[i])
  if holder and holder ~= token then return 0 end
end
local us = now_us()
local ends = math.floor(us / 1000) + lease_ms
for i = 6, #ARGV do redis.call('SET', 'sw:lease:' .. ARGV[i], token, 'PX', lease_ms) end
if ARGV[5] ~= '' then
  local before = redis.call('GET', 'sw:suspect:' .. ARGV[5])
  local mark = (before and before ~= token) and 'several' or token
  redis.call('SET', 'sw:suspect:' .. ARGV[5], mark, 'PX', tonumber(ARGV[4]))
end
redis.call('HSET', 'sw:work:' .. mailbox, 'until', ends)
set_due(mailbox, ends, ends)
return us
