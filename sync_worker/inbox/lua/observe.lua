-- Remember which records a customer holds, from an answer of Fusebill (B4.5). An answer to a request
-- that was sent before the last one applied to this customer is left out.
--
-- What a customer no longer holds is `released` if this was the answer to our own write, else `gone`:
-- then somebody else knows where it went.
--
-- ARGV: account, customer id, when the request was sent (us, store's clock), '1' for the answer to a
--       write else '', slot, id or '', ...
-- Returns 1 if applied.

local account, customer, sent_at = ARGV[1], ARGV[2], tonumber(ARGV[3])
local key = 'sw:customer:' .. account .. ':' .. customer
local at = redis.call('HGET', key, 'at')
if at and tonumber(at) > sent_at then return 0 end
redis.call('HSET', key, 'at', ARGV[3])
local left = ARGV[4] == '1' and 'released' or 'gone'
for i = 5, #ARGV, 2 do
  local slot, id = ARGV[i], ARGV[i + 1]
  local before = redis.call('HGET', key, slot)
  if before and before ~= '' and before ~= id then
    redis.call('HSET', 'sw:link:' .. account .. ':' .. slot .. ':' .. before, customer, left)
  end
  if id ~= '' then
    redis.call('HSET', 'sw:link:' .. account .. ':' .. slot .. ':' .. id, customer, 'holds')
  end
  redis.call('HSET', key, slot, id)
end
return 1
