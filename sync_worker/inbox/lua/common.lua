-- Shared by every script: put in front of it when it is loaded. The keys are described once, in
-- inbox/__init__.py.

local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function now_ms()
  return math.floor(now_us() / 1000)
end

-- Make a mailbox due. `wake` is when beat wakes it if nobody has by then.
local function set_due(mailbox, due, wake)
  redis.call('ZADD', 'sw:due', due, mailbox)
  redis.call('ZADD', 'sw:wake', wake, mailbox)
end

local function lease_lost(mailbox, token)
  return redis.call('HGET', 'sw:work:' .. mailbox, 'token') ~= token
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

local function close_dead_letter(id, state, now)
  local key = 'sw:dead:' .. id
  local open = redis.call('HGET', key, 'open')
  redis.call('HSET', key, 'state', state, 'closed_at', now)
  redis.call('HDEL', 'sw:dead:open', open)
  redis.call('ZREM', 'sw:dead:waiting', id)
  count('dead_letters_closed|' .. state, 1)
end

-- Whether a change of the dead letter is still in its mailbox.
local function waits_in_box(id, mailbox)
  for _, seq in ipairs(redis.call('HKEYS', 'sw:dead:' .. id .. ':changes')) do
    if redis.call('HEXISTS', 'sw:box:' .. mailbox, seq) == 1 then return true end
  end
  return false
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
    'customer_ids', letter.customer_ids, 'evidence', letter.evidence)
  redis.call('ZADD', 'sw:dead:waiting', now, id)
  for i = 1, #changes, 2 do
    redis.call('HSET', 'sw:dead:' .. id .. ':changes', changes[i], changes[i + 1])
  end
  for _, attempt in ipairs(letter.attempts) do
    redis.call('RPUSH', 'sw:dead:' .. id .. ':attempts', attempt)
  end
  redis.call('LTRIM', 'sw:dead:' .. id .. ':attempts', -200, -1)
  return id
end
