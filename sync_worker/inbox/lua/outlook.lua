-- How many Fusebill calls may be made (B7.1, B8.1); see budget.lua.
--
-- ARGV[1] MessagePack {budget, for which class, within how many ms}
-- Returns {calls that may go within that time, the minute's limit, what is left of it, the day's limit, what
-- is left of that}.

local budget, priority, within_ms = unpack(cmsgpack.unpack(ARGV[1]))
local room, minute, day = calls_within(budget, priority, within_ms, now_us())
return {room, minute[1], minute[2], day[1], day[2]}
