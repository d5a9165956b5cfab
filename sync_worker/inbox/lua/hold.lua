-- Before calls: take or renew the leases of a claim's mailboxes and of all the customers they concern, all
-- or none (B5.3), reserve the calls that follow (B7.2), and tell what need not be read, as somebody has
-- just read it (B7.4). A customer about to be written is suspect from here on: if the answer is lost, or
-- the worker vanishes, the write may still land, until `suspect` ms have passed.
--
-- ARGV[1] MessagePack {lease in ms, suspect in ms, claims}
--   claims     list of {mailboxes, token, customers, held, write, reading, calls}
--   mailboxes  the one that was claimed first
--   held       those of the customers that are held already: one whose lease has run out since may have
--              been changed by another, so it counts as busy
--   write      {} or {customer, intent, undo}: the intent is what the history will say of it, the undo
--              how to put back what the plan lets go of, both JSON
--   reading    {} or {account, since (us), oldest (us), customer, ...}: those to be read; a snapshot will
--              do that was asked for since then, and is no older than that
--   calls      {} or {budget, priority, how many beside the reads, those that are reserved already, and
--              whether they have been for long}
-- Returns for each claim {store's clock in us, first call reserved or 0, how many, snapshots} if all are
-- held; {0} if a customer is or was held by another mailbox, {-1} if a mailbox's lease is lost, {-2, ms}
-- if there is no budget before that.

local lease_ms, suspect_ms, claims = unpack(cmsgpack.unpack(ARGV[1]))

local function hold(mailboxes, token, customers, held, write, reading, calls)
  for _, mailbox in ipairs(mailboxes) do
    if lease_lost(mailbox, token) then return {-1} end
  end
  local is_mine = {}
  for _, customer in ipairs(customers) do
    local holder = redis.call('GET', 'sw:lease:' .. customer)
    if holder and holder ~= token then return {0} end
    is_mine[customer] = holder == token
  end
  for _, customer in ipairs(held) do
    if is_mine[customer] == nil then is_mine[customer] = redis.call('GET', 'sw:lease:' .. customer) == token end
    if not is_mine[customer] then return {0} end
  end

  local us = now_us()
  local snapshots, missing = {}, 0
  for i = 4, #reading do
    local since = math.max(reading[2], us - reading[3])
    local found = snapshot(reading[1], reading[i], since)
    if found then snapshots[#snapshots + 1] = found else missing = missing + 1 end
  end
  local call, reserved = 0, 0
  if #calls > 0 then
    -- After a 429 nothing goes, whatever was reserved before it (B6.2).
    local blocked_ms = tonumber(redis.call('HGET', told_key(calls[1]), 'blocked') or 0) - us / 1000
    if blocked_ms > 0 and calls[3] + missing > 0 then return {-2, math.ceil(blocked_ms)} end
    for _, id in ipairs(calls[5] and calls[4] or {}) do renew_calls(calls[1], id, 1, us) end
    reserved = math.max(0, calls[3] + missing - #calls[4])
    if reserved > 0 then
      local first, wait_ms = take_calls(calls[1], reserved, calls[2], us)
      if not first then return {-2, wait_ms} end
      call = first
    end
  end

  local ends = math.floor(us / 1000) + lease_ms
  if redis.call('GET', 'sw:alone') == token then redis.call('PEXPIRE', 'sw:alone', lease_ms) end
  for _, customer in ipairs(customers) do redis.call('SET', 'sw:lease:' .. customer, token, 'PX', lease_ms) end
  if #write > 0 then
    local suspect = 'sw:suspect:' .. write[1]
    local before = redis.call('GET', suspect)
    local mark = (before and before ~= token) and 'several' or token
    redis.call('SET', suspect, mark, 'PX', suspect_ms)
    redis.call('SET', 'sw:intent:' .. write[1], write[2], 'EX', 86400)
    redis.call('HSET', 'sw:work:' .. mailboxes[1], 'undo', write[3])
  end
  for _, mailbox in ipairs(mailboxes) do
    redis.call('HSET', 'sw:work:' .. mailbox, 'until', ends)
    set_due(mailbox, ends, ends)
  end
  return {us, call, reserved, snapshots}
end

local answers = {}
for _, claim in ipairs(claims) do answers[#answers + 1] = hold(unpack(claim)) end
return answers
