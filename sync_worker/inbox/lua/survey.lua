-- What a batch is to know before it begins: what the link index says of its records, whether a sweep saw
-- them all, whether the server is known to honour a set of ids, and how much else is due.
--
-- ARGV[1] MessagePack {account, for how many ms more what comes due counts, slot, id, slot, id, ...}
-- Returns {store's clock in us, links, begun, blind, honours, due}
--   links         for each record flat: customer, link, ...
--   begun, blind  of the last sweep (swept.lua), '' if there was none
--   honours       'yes', 'no', or '' if that is not known
--   due           mailboxes that are due and wait at no gate

local asked = cmsgpack.unpack(ARGV[1])
local account, us = asked[1], now_us()
local links = {}
for i = 3, #asked, 2 do
  links[#links + 1] = redis.call('HGETALL', 'sw:link:' .. account .. ':' .. asked[i] .. ':' .. asked[i + 1])
end
local swept = redis.call('HMGET', 'sw:sweep:' .. account, 'begun', 'blind')
local soon, due = math.floor(us / 1000) + asked[2], 0
for _, lane in ipairs({'sw:wake', 'sw:wake:replay'}) do due = due + redis.call('ZCOUNT', lane, '-inf', soon) end
return {us, links, swept[1] or '', swept[2] or '', redis.call('GET', 'sw:idset:' .. account) or '', due}
