-- Remember which records customers hold, from answers of Fusebill (B4.5); see index.lua.
--
-- ARGV[1] MessagePack {account, customers}
--   customers  list of {customer id, when the request was sent (us, store's clock), whether it was a write,
--              flat: slot, id or '', ...}
-- Returns how many were applied.

local account, customers = unpack(cmsgpack.unpack(ARGV[1]))
local applied = 0
for _, one in ipairs(customers) do
  if observe(account, one[1], one[2], one[3], one[4]) then applied = applied + 1 end
end
return applied
