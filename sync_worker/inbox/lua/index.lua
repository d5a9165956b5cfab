-- The link index: which records a customer holds, from answers of Fusebill (B4.5), and what of it is fresh
-- enough to stand for a read (B7.4).

local SLOTS = {'hubspot_contact', 'hubspot_company', 'salesforce_account', 'geotab_customer'}

-- Remember an answer. One to a request that was sent before the last one applied to this customer is
-- left out: what a write has answered is true whatever was read while it was under way.
--
-- What a customer no longer holds is `released` if this was the answer to our own write, else `gone`:
-- then somebody else knows where it went. Each difference is a line of the customer's history; what a
-- dead letter waits for is judged again when it is free.
--
-- `sent_at` is when the request was sent (us, store's clock), `written` whether it was a write, `slots`
-- flat: slot, id or '', ...; one that the answer left out is not in it. Returns whether it was applied.
local function observe(account, customer, sent_at, written, slots)
  local key = 'sw:customer:' .. account .. ':' .. customer
  local names = {'at', 'partly'}
  for i = 1, #slots, 2 do names[#names + 1] = slots[i] end
  local known = redis.call('HMGET', key, unpack(names))
  if known[1] and tonumber(known[1]) > sent_at and not written then return false end
  local sent = string.format('%.0f', sent_at)
  local news = {'at', written and string.format('%.0f', now_us()) or sent, 'sent', sent}
  local function note(field, value)
    news[#news + 1] = field
    news[#news + 1] = value
  end
  if #slots < 2 * #SLOTS then
    note('partly', '1')
  elseif known[2] then
    redis.call('HDEL', key, 'partly')
  end
  local intent = redis.call('GET', 'sw:intent:' .. customer)
  intent = intent and cjson.decode(intent)
  local arrived = intent and true or false
  local now
  for i = 1, #slots, 2 do
    local slot, id = slots[i], slots[i + 1]
    local before = known[2 + (i + 1) / 2]
    if intent and intent.slots[slot] and intent.slots[slot] ~= id then arrived = false end
    if before ~= id then
      now = now or now_ms()
      -- Why a slot holds what it does: our own write, also one whose answer was lost, or another hand.
      local why = (intent and intent.slots[slot] == id) and intent.because or ''
      local link = 'sw:link:' .. account .. ':' .. slot .. ':'
      if before and before ~= '' then
        redis.call('HSET', link .. before, customer, why ~= '' and 'released' or 'gone')
        redis.call('HINCRBY', 'sw:index:' .. account, 'links', -1)
      end
      if id ~= '' then
        redis.call('HSET', link .. id, customer, 'holds')
        redis.call('HINCRBY', 'sw:index:' .. account, 'links', 1)
      end
      note(slot, id)
      if before or id ~= '' then
        local history = 'sw:history:' .. account .. ':' .. customer
        redis.call('RPUSH', history, cjson.encode({at = now, slot = slot, before = before or '', after = id,
          because = why, first = not before}))
        redis.call('LTRIM', history, -1000, -1)
      end
      if why ~= '' and intent.replaces[slot] then note('replaced:' .. slot, now) end
      if before and id == '' then retry_blocked(slot, customer, now) end
    end
  end
  redis.call('HSET', key, unpack(news))
  -- Once it has arrived, the same again would be another hand's.
  if arrived then redis.call('DEL', 'sw:intent:' .. customer) end
  return true
end

-- What is known of a customer from an answer that left nothing out, to a request sent at `since` (us) or
-- later; nil if that is not so, or if a write may have arrived that was not answered (B5.3).
-- Flat: customer, when the request was sent (us), id or '' of each slot in the order of SLOTS.
local function snapshot(account, customer, since)
  local key = 'sw:customer:' .. account .. ':' .. customer
  local known = redis.call('HMGET', key, 'sent', 'partly', unpack(SLOTS))
  if not known[1] or known[2] or tonumber(known[1]) < since then return nil end
  for i = 3, 2 + #SLOTS do
    if not known[i] then return nil end
  end
  if redis.call('EXISTS', 'sw:suspect:' .. customer, 'sw:intent:' .. customer) > 0 then return nil end
  known[2] = known[1]
  known[1] = customer
  return known
end
