-- Fusebill calls have ended, or were not made (B7.1); see budget.lua.
--
-- ARGV[1] MessagePack {budget, calls that ended, what the answer told, calls that were not made}

local budget, ended, told, unmade = unpack(cmsgpack.unpack(ARGV[1]))
for _, id in ipairs(ended) do end_call(budget, id, told, now_us()) end
for _, id in ipairs(unmade) do give_back(budget, id, 1) end
