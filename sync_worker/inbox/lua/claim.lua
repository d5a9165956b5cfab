-- Lease due mailboxes and read what they hold (B5.3), as many as there is budget for (B7.2).
--
-- ARGV[1] MessagePack {lease in ms, how soon one is woken again that has to wait for its turn (ms), whether
-- one may be taken that must be worked on alone, budget, calls, mailboxes}
--   budget     {} or see budget.lua
--   calls      how many calls are reserved for each
--   mailboxes  list of {mailbox, token, gates it must pass}
-- Returns {now, ms until there is budget or 0, definitions, calls, answers}
--   calls      flat: first of those that were reserved, how many, ...
--   answers    for each mailbox {'claimed', box, work, marks, survivor, merged} (box, work and marks flat:
--              field, value, ...; survivor and merged: see join), or
--              {'empty'} | {'leased'} | {'early'};
--              {'shut'} if a gate is, which wakes it once it opens (B6.3);
--              {'alone'} if its worker vanished, so that it is next worked on alone (B6.6);
--              {'waits'} if it is to be worked on alone, and another one is;
--              {'poor'} if there is no budget left for it.

local lease_ms, turn_ms, may_be_alone, budget, calls, mailboxes = unpack(cmsgpack.unpack(ARGV[1]))
local us = now_us()
local now = math.floor(us / 1000)
local reserved, wait_ms = {}, 0
local is_poor = {}

-- Reserve a mailbox's calls: as many at a time as the mailboxes that are left may need. What is live comes
-- first, so what it may not have a replay may not either.
local spare = {[LIVE] = 0, [REPLAY] = 0}
local function afford(mailbox, are_left)
  if #budget == 0 then return true end
  local priority = lane_of(mailbox) == 'sw:wake' and LIVE or REPLAY
  if spare[priority] == 0 then
    if is_poor[LIVE] or is_poor[priority] then return false end
    local at_once = math.max(1, math.min(are_left, math.floor(free_calls(budget, priority, us) / calls)))
    local first, wait = take_calls(budget, at_once * calls, priority, us)
    if not first then
      is_poor[priority] = true
      wait_ms = wait_ms == 0 and wait or math.min(wait_ms, wait)
      return false
    end
    reserved[#reserved + 1] = first
    reserved[#reserved + 1] = at_once * calls
    spare[priority] = at_once
  end
  spare[priority] = spare[priority] - 1
  return true
end

local are_shut = {}
local function has_shut(gate)
  if are_shut[gate] == nil then are_shut[gate] = is_shut(gate) and true or false end
  return are_shut[gate]
end

local function claim(mailbox, token, gates, are_left)
  local work_key = 'sw:work:' .. mailbox
  local box = redis.call('HGETALL', 'sw:box:' .. mailbox)
  local work = redis.call('HMGET', work_key, 'token', 'until')
  if work[1] and work[1] ~= token and tonumber(work[2]) > now then return {'leased'} end
  if #box == 0 then
    clear_work(mailbox)
    return {'empty'}
  end
  local due = redis.call('ZSCORE', 'sw:due', mailbox)
  if due and tonumber(due) > now and work[1] ~= token then
    redis.call('ZADD', lane_of(mailbox), due, mailbox)
    return {'early'}
  end
  for _, gate in ipairs(gates) do
    if has_shut(gate) then
      redis.call('ZREM', lane_of(mailbox), mailbox)
      redis.call('ZADD', 'sw:parked:' .. gate, now, mailbox)
      return {'shut'}
    end
  end
  note_vanished(mailbox, token, now)
  local is_alone = redis.call('HEXISTS', work_key, 'vanished') == 1
  if is_alone then
    if not may_be_alone then return {'alone'} end
    local other = redis.call('GET', 'sw:alone')
    if other and other ~= token then
      redis.call('ZADD', lane_of(mailbox), now + turn_ms, mailbox)
      return {'waits'}
    end
  end
  if not afford(mailbox, are_left) then
    redis.call('ZADD', lane_of(mailbox), now, mailbox)  -- beat names it as soon as there is budget
    return {'poor'}
  end
  redis.call('HDEL', work_key, 'alone', 'urgent')
  if is_alone then
    redis.call('SET', 'sw:alone', token, 'PX', lease_ms)
    redis.call('HSET', work_key, 'alone', run_id())
  end
  redis.call('HSET', work_key, 'token', token, 'until', now + lease_ms)
  set_due(mailbox, now + lease_ms, now + lease_ms)
  local survivor = survivor_of(mailbox)
  return {'claimed', box, redis.call('HGETALL', work_key), redis.call('HGETALL', 'sw:mark:' .. mailbox), survivor,
    merged_into(survivor)}
end

local answers = {}
for i, one in ipairs(mailboxes) do
  answers[i] = claim(one[1], one[2], one[3], #mailboxes - i + 1)
end
return {now, wait_ms, redis.call('SMEMBERS', 'sw:definitions'), reserved, answers}
