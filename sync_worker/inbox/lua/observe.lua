-- Remember which records a customer holds, from an answer of Fusebill (B4.5). An answer to a request
-- that was sent before the last one applied to this customer is left out.
--
-- What a customer no longer holds is `released` if this was the answer to our own write, else `gone`:
-- then somebody else knows where it went. Each difference is a line of the customer's history; what a
-- dead letter waits for is judged again when it is free.
--
-- ARGV: account, customer id, when the request was sent (us, store's clock), '1' for the answer to a
--       write else '', slot, id or '', ...
-- Returns 1 if applied.

local account, customer, sent_at = ARGV[1], ARGV[2], tonumber(ARGV[3])
local key = 'sw:customer:' .. account .. ':' .. customer
local at = redis.call('HGET', key, 'at')
local written = ARGV[4] == '1'
-- What a write has answered is true whatever was read while it was under way.
if at and tonumber(at) > sent_at and not written then return 0 end
redis.call('HSET', key, 'at', written and string.format('%.0f', now_us()) or ARGV[3])
local now = now_ms()
local intent = redis.call('GET', 'sw:intent:' .. customer)
intent = intent and cjson.decode(intent)

-- Why a slot holds what it does: our own write, also one whose answer was lost, or another hand.
local arrived = intent and true or false
local function because(slot, id)
  if intent and intent.slots[slot] == id then return intent.because end
  return ''
end

for i = 5, #ARGV, 2 do
  local slot, id = ARGV[i], ARGV[i + 1]
  local before = redis.call('HGET', key, slot)
  local why = because(slot, id)
  local link = 'sw:link:' .. account .. ':' .. slot .. ':'
  if intent and intent.slots[slot] and intent.slots[slot] ~= id then arrived = false end
  if before and before ~= '' and before ~= id then
    redis.call('HSET', link .. before, customer, why ~= '' and 'released' or 'gone')
    redis.call('HINCRBY', 'sw:index:' .. account, 'links', -1)
  end
  if id ~= '' then
    redis.call('HSET', link .. id, customer, 'holds')
    if before ~= id then redis.call('HINCRBY', 'sw:index:' .. account, 'links', 1) end
  end
  if before ~= id then
    redis.call('HSET', key, slot, id)
    if before or id ~= '' then
      local history = 'sw:history:' .. account .. ':' .. customer
      redis.call('RPUSH', history, cjson.encode({at = now, slot = slot, before = before or '', after = id,
        because = why, first = not before}))
      redis.call('LTRIM', history, -1000, -1)
    end
    if why ~= '' and intent.replaces[slot] then redis.call('HSET', key, 'replaced:' .. slot, now) end
    if before and id == '' then retry_blocked(slot, customer, now) end
  end
end
-- Once it has arrived, the same again would be another hand's.
if arrived then redis.call('DEL', 'sw:intent:' .. customer) end
return 1
