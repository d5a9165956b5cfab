-- Shared by every script: put in front of it when it is loaded. The keys are described once, in
-- inbox/__init__.py.

-- It stands still while a script runs.
local clock_us
local function now_us()
  if not clock_us then
    local time = redis.call('TIME')
    clock_us = time[1] * 1000000 + time[2]
  end
  return clock_us
end

local function now_ms()
  return math.floor(now_us() / 1000)
end

-- Where a mailbox waits to be woken: what only a replay put back comes after what is live (B7.3).
local function lane_of(mailbox)
  return redis.call('HGET', 'sw:work:' .. mailbox, 'lane') == 'replay' and 'sw:wake:replay' or 'sw:wake'
end

-- Make a mailbox due. `wake` is when beat wakes it if nobody has by then.
local function set_due(mailbox, due, wake)
  redis.call('ZADD', 'sw:due', due, mailbox)
  redis.call('ZADD', lane_of(mailbox), wake, mailbox)
end

-- Have a mailbox wait in another lane, for as long as it waited in the one that it is in.
local function change_lane(mailbox, from, to)
  local wake = redis.call('ZSCORE', from, mailbox)
  if not wake then return end
  redis.call('ZREM', from, mailbox)
  redis.call('ZADD', to, wake, mailbox)
end

-- Have a mailbox in the lane of what is live, from which on it is woken in that order.
local function make_live(mailbox)
  if redis.call('HDEL', 'sw:work:' .. mailbox, 'lane') == 1 then change_lane(mailbox, 'sw:wake:replay', 'sw:wake') end
end

-- A mailbox is empty: nothing is due, and nothing of its work is left to know.
local function clear_work(mailbox)
  redis.call('ZREM', 'sw:due', mailbox)
  redis.call('ZREM', 'sw:wake', mailbox)
  redis.call('ZREM', 'sw:wake:replay', mailbox)
  redis.call('DEL', 'sw:work:' .. mailbox)
end

local function lease_lost(mailbox, token)
  return redis.call('HGET', 'sw:work:' .. mailbox, 'token') ~= token
end

local function is_leased(mailbox, now)
  local ends = redis.call('HGET', 'sw:work:' .. mailbox, 'until')
  return ends and tonumber(ends) > now
end

-- Whether work that needs a remote system is to wait: its circuit is open, it refuses the credentials,
-- or an operator has paused everything (B6.3, B6.4).
local function is_shut(gate)
  local why = redis.call('HMGET', 'sw:gate:' .. gate, 'open', 'refused', 'paused')
  return why[1] or why[2] or why[3]
end

local function run_id()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
end

-- Note that the worker which held a mailbox has vanished: its lease ran out and was not given back. Only
-- a death while it was worked on alone tells that it is this mailbox that kills (B6.6), and only if the
-- store was there all the while: without it no worker can give anything back.
local function note_vanished(mailbox, token, now)
  local key = 'sw:work:' .. mailbox
  local work = redis.call('HMGET', key, 'token', 'until', 'alone', 'crashes')
  if not work[1] or work[1] == token or tonumber(work[2]) > now then return end
  redis.call('HDEL', key, 'token', 'until', 'alone')
  redis.call('HSET', key, 'vanished', '1')
  if work[3] == run_id() then
    redis.call('HSET', key, 'crashes', work[4] and (work[4] .. ' ' .. work[2]) or work[2])
  end
end

-- Give back the turn of the one mailbox that is worked on alone.
local function end_turn_alone(token)
  if redis.call('GET', 'sw:alone') == token then redis.call('DEL', 'sw:alone') end
end

-- Make a mailbox due now, with its schedule begun anew; one that is being worked on is told so.
local function urge(mailbox, now, wake_grace_ms)
  if is_leased(mailbox, now) then
    redis.call('HSET', 'sw:work:' .. mailbox, 'urgent', '1')
  else
    redis.call('HDEL', 'sw:work:' .. mailbox, 'failures')
    set_due(mailbox, now, now + wake_grace_ms)
  end
end

-- Let go of a mailbox that was held beside another: it is due when it was, or now if something came.
-- The wake-up of what came has found it held and is gone, so beat need not give one time to arrive.
local function let_go(mailbox, token, due_before, now)
  local key = 'sw:work:' .. mailbox
  if redis.call('HGET', key, 'token') ~= token then return end
  local urgent = redis.call('HGET', key, 'urgent')
  redis.call('HDEL', key, 'token', 'until', 'urgent')
  if redis.call('EXISTS', 'sw:box:' .. mailbox) == 0 then
    clear_work(mailbox)
  elseif urgent or due_before == '' then
    set_due(mailbox, now, now)
  else
    set_due(mailbox, due_before, due_before)
  end
end

-- The record that is left of one that was merged, itself if it was not (B3.12).
local function survivor_of(mailbox)
  for _ = 1, 20 do
    local into = redis.call('GET', 'sw:alias:' .. mailbox)
    if not into then return mailbox end
    mailbox = into
  end
  return mailbox
end

-- Note that records were merged into another: `merges` is flat: merged, survivor, ...
local function note_merges(merges, keep_ms)
  for i = 1, #merges, 2 do
    local from, into = merges[i], merges[i + 1]
    if survivor_of(into) ~= from then
      redis.call('SET', 'sw:alias:' .. from, into, 'PX', keep_ms)
      redis.call('SADD', 'sw:merged:' .. into, from)
      redis.call('PEXPIRE', 'sw:merged:' .. into, keep_ms)
    end
  end
end

-- All that was merged into a record, over any number of steps, in a fixed order.
local function merged_into(mailbox)
  local found, seen, at = {}, {[mailbox] = true}, 1
  local waiting = {mailbox}
  while waiting[at] do
    local members = redis.call('SMEMBERS', 'sw:merged:' .. waiting[at])
    table.sort(members)
    for _, member in ipairs(members) do
      if not seen[member] then
        seen[member] = true
        found[#found + 1] = member
        waiting[#waiting + 1] = member
      end
    end
    at = at + 1
  end
  return found
end

-- Give customers back. What was written to one is known to have arrived, unless the answer was lost:
-- then the customer stays suspect for as long as the write may still land (B5.3).
local function release_customers(customers, token, answer_lost)
  for _, customer in ipairs(customers) do
    local key = 'sw:lease:' .. customer
    if redis.call('GET', key) == token then
      redis.call('DEL', key)
      local suspect = 'sw:suspect:' .. customer
      if not answer_lost and redis.call('GET', suspect) == token then redis.call('DEL', suspect) end
    end
  end
end

-- Count something for the metrics.
local function count(name, n)
  redis.call('HINCRBY', 'sw:count', name, n)
end

local function open_key(reason, aspect, mailbox)
  return reason .. '|' .. aspect .. '|' .. mailbox
end

local CLOSED_LETTER_SECONDS = 30 * 86400

local function close_dead_letter(id, state, now)
  local key = 'sw:dead:' .. id
  local open = redis.call('HGET', key, 'open')
  redis.call('HSET', key, 'state', state, 'closed_at', now)
  redis.call('HDEL', 'sw:dead:open', open)
  redis.call('ZREM', 'sw:dead:waiting', id)
  -- What its changes said is kept until it is closed, and for a while to look back at (B10.2).
  for _, part in ipairs({'', ':changes', ':attempts'}) do
    redis.call('EXPIRE', key .. part, CLOSED_LETTER_SECONDS)
  end
  count('dead_letters_closed|' .. state, 1)
end

-- Whether a change of the dead letter is still in its mailbox.
local function waits_in_box(id, mailbox)
  for _, seq in ipairs(redis.call('HKEYS', 'sw:dead:' .. id .. ':changes')) do
    if redis.call('HEXISTS', 'sw:box:' .. mailbox, seq) == 1 then return true end
  end
  return false
end

-- A change that a dry run kept is decided anew (B5.9).
local function forget_would(seq)
  local kept = redis.call('HGET', 'sw:would', seq)
  if not kept then return end
  redis.call('HDEL', 'sw:would', seq)
  local name = string.match(kept, '^[^|]*|([^|]*)|')
  if name then redis.call('SREM', 'sw:would:of:' .. name, seq) end
end

-- Put changes back into a mailbox; `changes` is flat: number, stored form, ... They keep their
-- numbers and times of receipt, so that they never regress state (B6.10). `lane` is 'replay' if that is
-- all that brings them back.
local function put_back(mailbox, changes, now, wake_grace_ms, lane)
  if lane == 'replay' and redis.call('EXISTS', 'sw:box:' .. mailbox) == 0 then
    redis.call('HSET', 'sw:work:' .. mailbox, 'lane', lane)
    change_lane(mailbox, 'sw:wake', 'sw:wake:replay')  -- an empty one waits where it is held beside another
  end
  for i = 1, #changes, 2 do
    redis.call('HSET', 'sw:box:' .. mailbox, changes[i], changes[i + 1])
    forget_would(changes[i])
  end
  urge(mailbox, now, wake_grace_ms)
  redis.call('HSET', 'sw:work:' .. mailbox, 'replayed_at', now)
end

-- What stood in the way of these dead letters is gone: judge them again.
local function retry_blocked(slot, customer, now)
  local key = 'sw:blocked:' .. slot .. ':' .. customer
  for _, id in ipairs(redis.call('SMEMBERS', key)) do
    local letter = redis.call('HMGET', 'sw:dead:' .. id, 'state', 'mailbox')
    if letter[1] == 'open' then
      redis.call('HSET', 'sw:dead:' .. id, 'state', 'replaying', 'replay_id', 'freed', 'replayed_at', now)
      put_back(letter[2], redis.call('HGETALL', 'sw:dead:' .. id .. ':changes'), now, 0)
    end
  end
  redis.call('DEL', key)
end

-- Write a dead letter, or update the one that is open for the same mailbox, aspect and reason
-- (B6.5); a body that never became a change is told apart by `digest` instead (B2.10).
-- `changes` is a flat list: number, stored value, number, stored value ...
local function bury(letter, changes, now)
  local open = open_key(letter.reason, letter.aspect, letter.digest or letter.mailbox)
  local id = redis.call('HGET', 'sw:dead:open', open)
  if not id then
    id = tostring(redis.call('INCR', 'sw:dead:seq'))
    redis.call('HSET', 'sw:dead:open', open, id)
    redis.call('HSET', 'sw:dead:' .. id, 'version', '1', 'open', open, 'reason', letter.reason,
      'aspect', letter.aspect, 'mailbox', letter.mailbox, 'source', letter.source,
      'first_failed_at', now)
    redis.call('ZADD', 'sw:dead:all', now, id)
    count('dead_letters_written|' .. letter.reason, 1)
  end
  redis.call('HSET', 'sw:dead:' .. id, 'state', 'open', 'last_failed_at', now,
    'message', letter.message, 'next_step', letter.next_step,
    'customer_ids', letter.customer_ids)
  redis.call('ZADD', 'sw:dead:waiting', now, id)
  for i = 1, #changes, 2 do
    redis.call('HSET', 'sw:dead:' .. id .. ':changes', changes[i], changes[i + 1])
  end
  for _, attempt in ipairs(letter.attempts) do
    redis.call('RPUSH', 'sw:dead:' .. id .. ':attempts', attempt)
  end
  redis.call('LTRIM', 'sw:dead:' .. id .. ':attempts', -200, -1)
  for _, blocked in ipairs(letter.blocked_by or {}) do
    redis.call('SADD', 'sw:blocked:' .. blocked, id)
  end
  return id
end
