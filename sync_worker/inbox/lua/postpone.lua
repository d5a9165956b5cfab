-- Put a claimed mailbox back, due later; nothing of it is settled (B6.8).
--
-- ARGV[1] MessagePack {mailbox, token, delay in ms, failures so far, attempts (JSON), answer_lost,
--         customers to give back, joined, notes, sweep}
--   joined   flat: mailbox that was held beside it, when it was due before or '', ...
--   notes    flat: field of sw:work, value or '' to remove it, ...
--   sweep    '' or 'asked': it is woken after a sweep that begins from now on; 'refused': also note that
--            only such a sweep can explain why Fusebill refused
-- Returns -1 if the lease is lost, else when it is due in ms. An urgent change that came meanwhile
-- makes it due now and restarts its schedule.

local mailbox, token, delay_ms, failures, attempts, answer_lost, customers, joined, notes, sweep =
  unpack(cmsgpack.unpack(ARGV[1]))
if lease_lost(mailbox, token) then return -1 end
local now = now_ms()
local work_key = 'sw:work:' .. mailbox
release_customers(customers, token, answer_lost)
end_turn_alone(token)
for i = 1, #joined, 2 do let_go(joined[i], token, joined[i + 1], now) end

local due, wake = now + delay_ms, now + delay_ms
if redis.call('HGET', work_key, 'urgent') then
  due, wake, failures = now, now, '0'
end
redis.call('HDEL', work_key, 'token', 'until', 'urgent', 'alone')
redis.call('HSET', work_key, 'failures', failures, 'attempts', attempts)
for i = 1, #notes, 2 do
  if notes[i + 1] == '' then redis.call('HDEL', work_key, notes[i])
  else redis.call('HSET', work_key, notes[i], notes[i + 1]) end
end
if sweep ~= '' then redis.call('ZADD', 'sw:sweep:waiting', now, mailbox) end
if sweep == 'refused' then redis.call('HSET', work_key, 'refused_at', now) end
set_due(mailbox, due, wake)
return due
