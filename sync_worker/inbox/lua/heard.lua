-- Take in what a call to Fusebill came to: its end in the budget (B7.1), what it tells of Fusebill itself
-- (B6.3), and the customers that it showed (B4.5): one step after each call.
--
-- ARGV[1] MessagePack {budget, call, told, report, account, customers}
--   budget, call, told   see budget.lua; call 0 was reserved nowhere
--   report               see gates.lua
--   account, customers   see observe.lua
-- Returns 1 if the gate is shut now, else 0.

local budget, call, told, report, account, customers = unpack(cmsgpack.unpack(ARGV[1]))
if call > 0 then end_call(budget, call, told, now_us()) end
for _, one in ipairs(customers) do observe(account, one[1], one[2], one[3], one[4]) end
return tell_gate(report) and 1 or 0
