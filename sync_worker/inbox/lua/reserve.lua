-- Reserve Fusebill calls (B7.1, B7.2); see budget.lua.
--
-- ARGV[1] MessagePack {budget, how many, for which class}
-- Returns {id of the first, 0}, or {0, ms until asking again may help}.

local budget, n, priority = unpack(cmsgpack.unpack(ARGV[1]))
local first, wait = take_calls(budget, n, priority, now_us())
return {first or 0, wait or 0}
