-- Take or renew the leases of the mailboxes and of all the customers they concern: all or none (B5.3).
-- A customer about to be written is suspect from here on: if the answer is lost, or the worker
-- vanishes, the write may still land, until `suspect` ms have passed.
--
-- ARGV[1] MessagePack {mailboxes, token, lease in ms, suspect in ms, customers, held, write}
--   mailboxes  the one that was claimed first
--   held       those of the customers that are held already: one whose lease has run out since may have
--              been changed by another, so it counts as busy
--   write      {} or {customer, intent, undo}: the intent is what the history will say of it, the undo
--              how to put back what the plan lets go of, both JSON
-- Returns the store's clock in microseconds if all are held, 0 if a customer is or was held by another
-- mailbox, -1 if a mailbox's lease is lost.

local mailboxes, token, lease_ms, suspect_ms, customers, held, write = unpack(cmsgpack.unpack(ARGV[1]))
for _, mailbox in ipairs(mailboxes) do
  if lease_lost(mailbox, token) then return -1 end
end
for _, customer in ipairs(customers) do
  local holder = redis.call('GET', 'sw:lease:' .. customer)
  if holder and holder ~= token then return 0 end
end
for _, customer in ipairs(held) do
  if redis.call('GET', 'sw:lease:' .. customer) ~= token then return 0 end
end
local us = now_us()
local ends = math.floor(us / 1000) + lease_ms
if redis.call('GET', 'sw:alone') == token then redis.call('PEXPIRE', 'sw:alone', lease_ms) end
for _, customer in ipairs(customers) do redis.call('SET', 'sw:lease:' .. customer, token, 'PX', lease_ms) end
if #write > 0 then
  local suspect = 'sw:suspect:' .. write[1]
  local before = redis.call('GET', suspect)
  local mark = (before and before ~= token) and 'several' or token
  redis.call('SET', suspect, mark, 'PX', suspect_ms)
  redis.call('SET', 'sw:intent:' .. write[1], write[2], 'EX', 86400)
  redis.call('HSET', 'sw:work:' .. mailboxes[1], 'undo', write[3])
end
for _, mailbox in ipairs(mailboxes) do
  redis.call('HSET', 'sw:work:' .. mailbox, 'until', ends)
  set_due(mailbox, ends, ends)
end
return us
