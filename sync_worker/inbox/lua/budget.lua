-- The budget of Fusebill calls (B7.1 to B7.3), for scripts that name it in `scripts.LIBRARIES`: put
-- behind common.lua. The keys are described in inbox/__init__.py; what they mean together is here.
--
-- A call counts from when it is reserved until a minute after it ended. Fusebill counted it somewhere
-- between, so no minute of its clock, fixed or sliding, ever holds more calls than ours does, however
-- long they take. A call whose worker vanished counts as if it had ended when it had to.
--
-- What the headers tell binds as far as our own log does not explain it. Alone on the account the log is
-- the stricter of both, and newer: what was told is old by the time of an answer, and in a sliding window
-- rises without anybody telling. Once an answer tells of more calls than ours, others use the account
-- too; then what was told last is all there is, less the calls that are in flight.
--
-- `budget` is everywhere {account, calls a minute, calls a day, share that is kept for live work, ms until
-- a reserved call that nobody ended counts no more}, `us` the store's clock.

-- Who asks, the most urgent first (B7.3): few calls that serve many, live changes, replays, the rest.
local FIRST, LIVE, REPLAY, BACKGROUND = 0, 1, 2, 3

-- A minute, and by how much two clocks that are being set right (500 ppm each) may differ on one.
local CALL_COUNTS_MS = 60000 + 60
local MINUTE_MS, HOUR_MS = 60000, 3600000
-- What a window names as its reset is believed for so long at most. That of a day is asked about every
-- hour: its format is not documented, and one that is misread must not stop all work for a day.
local LONGEST_MS = {minute = MINUTE_MS + 1000, day = HOUR_MS}
-- How long others are remembered to use the account.
local SHARED_MS = 600000
-- By how much a telling may differ from our log before others are behind it.
local SHARED_CALLS = 2
-- The share of a minute's calls that may be in flight while it is not known what is left of it.
local UNTOLD_SHARE = 0.05
-- How long what was told stays true beside others, who may have used it up since.
local FRESH_MS = 1000
-- How long the calls that come free first, when a window is over, are left to others: who was refused comes
-- back for them.
local AFTER_MS = 1000
-- How long an answer is waited for that is to tell: what is in flight may have been lost with its worker.
local TRIAL_MS = 2000
-- The share of a minute's calls, and at least how many, that is kept from calls that go several at a time
-- while others use the account.
local GUARD_SHARE, GUARD_CALLS = 0.005, 2
-- How many calls are kept for others, beside the guard, for each of ours that is under way: more by one with
-- every call that is refused, and half of it after so long. As many seconds nothing goes after a refusal.
local LEAST_CARE, MOST_CARE, CARE_HALVES_MS = 2, 8, 120000
-- For how long after a 429 what is kept from others is not touched.
local REFUSED_MS = 2 * MINUTE_MS
-- How long after its next try a class that was refused still finds what it asked for.
local WANTED_MS = 1500
-- How far a replay may be ahead of a pace at which all calls would be spread evenly.
local PACE_US = 1000000
-- Who is refused asks again after so long at least, and so soon if an answer under way may change it.
local SOONEST_MS, ANSWER_MS = 20, 50

local function hash(key)
  local found, flat = {}, redis.call('HGETALL', key)
  for i = 1, #flat, 2 do found[flat[i]] = tonumber(flat[i + 1]) end
  return found
end

local function calls_key(budget) return 'sw:calls:' .. budget[1] end
local function day_key(budget) return 'sw:calls:' .. budget[1] .. ':day' end
local function told_key(budget) return 'sw:budget:' .. budget[1] end

-- Count calls of the day by the hour in which they count last; a negative number takes some back.
local function count_day(budget, until_ms, n)
  local key, hour = day_key(budget), math.floor(until_ms / HOUR_MS)
  if redis.call('HINCRBY', key, hour, n) <= 0 then redis.call('HDEL', key, hour) end
end

-- How things stand: {us, now, limit, used, in_flight} of the minute by our log, {day_limit, day_used} of the
-- day, and `told`, all that was told and noted.
local function calls_now(budget, us)
  local now, told = math.floor(us / 1000), hash(told_key(budget))
  local s = {us = us, now = now, told = told, hours = hash(day_key(budget)), day_used = 0}
  s.limit = math.max(1, math.min(budget[2], told.minute_limit or budget[2]))
  s.day_limit = math.max(1, math.min(budget[3], told.day_limit or budget[3]))
  s.used = redis.call('ZCOUNT', calls_key(budget), '(' .. now, '+inf')
  s.in_flight = redis.call('ZCOUNT', calls_key(budget), '(' .. now + CALL_COUNTS_MS, '+inf')
  for hour, n in pairs(s.hours) do
    -- A call counts for a day from the end of its hour.
    if tonumber(hour) + 25 > math.floor(now / HOUR_MS) then s.day_used = s.day_used + n end
  end
  s.shared = (told.shared or 0) > now
  return s
end

-- How many calls are kept for others for each of ours that is under way.
local function care_now(told, now)
  local care = (told.care or 0) * 0.5 ^ ((now - (told.refused or now)) / CARE_HALVES_MS)
  return math.max(LEAST_CARE, care)
end

-- How many calls may go as far as a window's headers tell, of `n` that are asked for; the ms until that
-- may change; and whether an answer is needed to tell.
local function told_room(s, window, n)
  local told = s.told
  local left, ends = told[window .. '_left'], told[window .. '_ends'] or 0
  local soon = s.in_flight > 0 and ANSWER_MS
  local is_shared = s.shared and window == 'minute'
  if is_shared then ends = ends + AFTER_MS end
  local is_told = left and ends > s.now
  if is_told and is_shared and left > 0 and not s.foresees then is_told = told.minute_heard + FRESH_MS > s.now end
  if not is_told then
    if s.foresees or (window == 'day' and left ~= 0) then return math.huge, 0, false end
    -- A few calls go, and their answers tell.
    local few = math.max(1, (s.shared or window == 'day') and 1 or math.floor(s.limit * UNTOLD_SHARE)) - s.in_flight
    if not soon or (told.tried or 0) + TRIAL_MS <= s.now then return math.max(few, n), 0, true end
    return few, soon, true
  end
  local wait = soon or ends - s.now
  if window == 'day' then return left - s.in_flight, wait, false end
  if not is_shared then return math.huge, 0, false end
  -- While ours are under way others take some too, so not all that is left goes at a time. What is
  -- kept from them is spent by one call at a time, unless that has failed lately.
  local spare = left - math.max(GUARD_CALLS, math.floor(s.limit * GUARD_SHARE))
  if s.foresees then return spare - s.in_flight, wait, false end
  local room = math.floor(spare / (1 + care_now(told, s.now))) - s.in_flight
  if room < n and not soon and (told.refused or 0) + REFUSED_MS <= s.now then room = left end
  return room, wait, false
end

-- How many calls others are to find free: those of higher classes that were refused, and a plan of the
-- same class, which needs several at once. Else calls that come free singly would all go to reads, and
-- what they found out would never be written.
local function wanted(s, priority, n)
  local calls, told = 0, s.told
  for class = FIRST, priority - 1 do
    if (told['want' .. class .. '_until'] or 0) > s.now then calls = calls + told['want' .. class] end
  end
  local plan = 'plan' .. priority
  if (told[plan .. '_until'] or 0) > s.now and told[plan] > n then calls = calls + told[plan] end
  return calls
end

-- When the oldest `n` calls of the log will count no more (ms from now).
local function frees_in(budget, s, n)
  local at = math.min(math.max(n, 1), s.used) - 1
  local found = redis.call('ZRANGE', calls_key(budget), '(' .. s.now, '+inf', 'BYSCORE', 'LIMIT', at, 1, 'WITHSCORES')
  return found[2] and tonumber(found[2]) - s.now or 0
end

-- When the day's log will have room for `n` more calls (ms from now).
local function day_frees_in(s, n)
  local hours = {}
  for hour in pairs(s.hours) do hours[#hours + 1] = tonumber(hour) end
  table.sort(hours)
  for _, hour in ipairs(hours) do
    if hour + 25 > math.floor(s.now / HOUR_MS) then
      n = n - s.hours[string.format('%.0f', hour)]
      if n <= 0 then return (hour + 25) * HOUR_MS - s.now end
    end
  end
  return HOUR_MS
end

-- Microseconds between two calls if all are spread evenly. A replay keeps to that, and calls of other
-- classes push it back, so that some come free all the time and what is live never waits for long.
local function pace_us(limit)
  return math.floor(MINUTE_MS * 1000 / limit)
end

-- How many calls of a class may go now, of `n` that are asked for; the ms until that may change if it is
-- fewer; whether calls are what it lacks, not its turn; and whether an answer is needed to tell what is left.
local function room_for(budget, s, priority, n, us)
  local room, wait = math.huge, 0
  local function bound(by, till)
    if by < n and till > wait then wait = till end
    if by < room then room = by end
  end
  local blocked = (s.told.blocked or 0) - s.now
  if blocked > 0 then bound(0, blocked) end
  local kept = wanted(s, priority, n)
  local day_kept = 0
  if priority == BACKGROUND then
    kept = kept + math.ceil(s.limit * budget[4])
  end
  -- A replay may take all of a minute, which is soon over, but not all of a day.
  if priority >= REPLAY then day_kept = math.ceil(s.day_limit * budget[4]) end
  local free = s.limit - s.used - kept
  bound(free, free < n and frees_in(budget, s, n - free) or 0)
  local day_free = s.day_limit - s.day_used - day_kept
  bound(day_free, day_free < n and day_frees_in(s, n - day_free) or 0)
  local left, till, untold = told_room(s, 'minute', n + kept)
  bound(left - kept, till)
  local day_left, day_till, day_untold = told_room(s, 'day', n + day_kept)
  bound(day_left - day_kept, day_till)
  local scarce = room < n
  if priority == REPLAY then
    local behind = us + PACE_US - math.max(s.told.paced or 0, s.us)
    if behind > 0 then
      bound(math.max(n, math.ceil(behind / pace_us(s.limit))), 0)
    else
      bound(0, math.ceil((1 - behind) / 1000))
    end
  end
  return math.max(0, room), math.max(SOONEST_MS, wait), scarce, untold or day_untold
end

-- Reserve `n` calls at once, or none (B7.2). More than the account has in a minute count as that many:
-- they would wait for ever.
--
-- Returns the id of the first, and the others follow it; or nil and the ms until asking again may help.
local function take_calls(budget, n, priority, us)
  local key, told = calls_key(budget), told_key(budget)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', math.floor(us / 1000))
  local s = calls_now(budget, us)
  if s.told.per_minute ~= budget[2] or s.told.per_day ~= budget[3] then
    redis.call('HSET', told, 'per_minute', budget[2], 'per_day', budget[3])
    redis.call('SADD', 'sw:budgets', budget[1])
  end
  local most = math.min(s.limit, s.day_limit)
  if priority == BACKGROUND then most = math.max(1, most - math.ceil(most * budget[4])) end
  local need = math.min(n, most)
  local room, wait, scarce, untold = room_for(budget, s, priority, need, us)
  if room < need then
    if scarce then
      local ends = s.now + wait + WANTED_MS
      redis.call('HSET', told, 'want' .. priority, need, 'want' .. priority .. '_until', ends)
      if need > 1 then redis.call('HSET', told, 'plan' .. priority, need, 'plan' .. priority .. '_until', ends) end
    end
    return nil, wait
  end
  if s.told['plan' .. priority] and s.told['plan' .. priority] <= need then
    redis.call('HDEL', told, 'plan' .. priority, 'plan' .. priority .. '_until')
  end
  if untold then redis.call('HSET', told, 'tried', s.now) end
  redis.call('HSET', told, 'paced', math.max(s.told.paced or 0, us) + n * pace_us(s.limit))
  for hour in pairs(s.hours) do
    if tonumber(hour) + 25 <= math.floor(s.now / HOUR_MS) then redis.call('HDEL', day_key(budget), hour) end
  end
  local last = redis.call('INCRBY', key .. ':id', n)
  local counts_until = s.now + budget[5]
  for id = last - n + 1, last do redis.call('ZADD', key, counts_until, id) end
  count_day(budget, counts_until, n)
  return last - n + 1
end

-- Have reserved calls that are yet to be made count as reserved now.
local function renew_calls(budget, first, n, us)
  for id = first, first + n - 1 do
    redis.call('ZADD', calls_key(budget), 'XX', math.floor(us / 1000) + budget[5], id)
  end
end

-- Give back reserved calls that were not made.
local function give_back(budget, first, n)
  local key, given = calls_key(budget), 0
  for id = first, first + n - 1 do
    local counts_until = redis.call('ZSCORE', key, id)
    if counts_until then
      redis.call('ZREM', key, id)
      count_day(budget, tonumber(counts_until), -1)
      given = given + 1
    end
  end
  local limit = tonumber(redis.call('HGET', told_key(budget), 'minute_limit') or budget[2])
  redis.call('HINCRBY', told_key(budget), 'paced', -given * pace_us(math.max(1, math.min(budget[2], limit))))
end

-- What there is to note of what an answer told, by `note`: `told` is what was noted before. Within a window
-- what is left only falls; another reset is another window. An answer to a call that was reserved after
-- something was told is newer than that; of others, which may have overtaken each other, the one with the
-- later reset is.
local function note_window(note, told, window, left, reset, ends, began, now)
  local before, reset_before = told[window .. '_left'], told[window .. '_reset']
  local is_same = false
  if before and (told[window .. '_ends'] or 0) > now then
    local newer = began and began > told[window .. '_at']
    is_same = reset == reset_before and not (newer and reset < 0)
    if not is_same and not newer and reset < reset_before then return end
  end
  note(window .. '_heard', now)
  if is_same and left >= before then return end
  note(window .. '_left', left)
  note(window .. '_at', now)
  if is_same then return end
  note(window .. '_reset', reset)
  note(window .. '_ends', ends)
end

-- Fusebill's clock less ours, as far as it can be known: a reset lies ahead of the moment in which it was
-- named, by a minute at most. It is 0 unless that cannot be.
local function clocks_differ(skew, reset, began, now)
  local least, most = reset - now - MINUTE_MS - 1000, reset - began
  if least > most then return skew end
  return math.min(math.max(skew, least), most)
end

-- A call ended: it counts for a minute from now. `id` is 0 for one that was not reserved. `told` is {}, or
-- {minute's limit, left, reset in ms since the epoch, day's limit, left, reset, 1 if it was refused with
-- 429 else 0}, each -1 where the answer did not tell.
local function end_call(budget, id, told, us)
  local key, noted = calls_key(budget), told_key(budget)
  local now, began = math.floor(us / 1000), nil
  if id == 0 then
    id = redis.call('INCR', key .. ':id')
    count_day(budget, now + budget[5], 1)
  else
    local counts_until = redis.call('ZSCORE', key, id)
    began = counts_until and tonumber(counts_until) - budget[5]
  end
  redis.call('ZADD', key, math.ceil(us / 1000) + CALL_COUNTS_MS, id)
  if #told == 0 then return end
  local limit, left, reset, day_limit, day_left, day_reset, refused = unpack(told)
  local before, news = hash(noted), {}
  local function note(name, value)
    if before[name] == value then return end
    news[#news + 1] = name
    news[#news + 1] = value
  end
  if limit >= 0 then note('minute_limit', limit) end
  if day_limit >= 0 then note('day_limit', day_limit) end
  if refused == 1 and day_left ~= 0 then left = 0 end

  local skew = before.skew or 0
  if reset >= 0 and began then
    skew = clocks_differ(skew, reset, began, now)
    note('skew', skew)
  end
  local function ends_of(window, at)
    if at < 0 then return now + (window == 'day' and HOUR_MS or MINUTE_MS) end
    return math.min(at - skew, now + LONGEST_MS[window])
  end
  local ends, day_ends = ends_of('minute', reset), ends_of('day', day_reset)
  if left >= 0 then note_window(note, before, 'minute', left, reset, ends, began, now) end
  if day_left >= 0 then note_window(note, before, 'day', day_left, day_reset, day_ends, began, now) end

  local shared = refused == 1
  if not shared and limit >= 0 and left >= 0 and ends > now then
    -- Ours in the window that the answer tells of ended after it began; a reset may be rounded up.
    local from = math.max(now, reset < 0 and now or ends - 1000)
    shared = limit - left - redis.call('ZCOUNT', key, '(' .. from, '+inf') > SHARED_CALLS
  end
  if shared then note('shared', now + SHARED_MS) end
  if refused == 1 then
    local till, care = day_left == 0 and day_ends or ends, math.min(MOST_CARE, care_now(before, now) + 1)
    note('refused', now)
    note('care', care)
    note('blocked', math.max(before.blocked or 0, till, now + math.floor(care * 1000)))
  end
  if #news > 0 then redis.call('HSET', noted, unpack(news)) end
end

-- How many calls of a class may go now, and the ms until more may.
local function free_calls(budget, priority, us)
  local s = calls_now(budget, us)
  local room, wait = room_for(budget, s, priority, 1, us)
  return math.min(room, s.limit), wait
end

-- How many calls of a class may go within so many ms, those that may go now included, as far as can be
-- foreseen; and as {limit, left} of the minute and of the day how things stand (B8.1).
local function calls_within(budget, priority, within_ms, us)
  local s = calls_now(budget, us)
  local ahead = {}
  for name, value in pairs(s) do ahead[name] = value end
  ahead.now = s.now + within_ms
  ahead.used = redis.call('ZCOUNT', calls_key(budget), '(' .. ahead.now, '+inf')
  ahead.foresees = within_ms > 0
  local room = room_for(budget, ahead, priority, 1, us + within_ms * 1000)
  local left, day_left = s.limit - s.used, s.day_limit - s.day_used
  if s.told.minute_left and (s.told.minute_ends or 0) > s.now then left = math.min(left, s.told.minute_left - s.in_flight) end
  if s.told.day_left and (s.told.day_ends or 0) > s.now then day_left = math.min(day_left, s.told.day_left - s.in_flight) end
  return math.min(room, s.limit), {s.limit, math.max(0, left)}, {s.day_limit, math.max(0, day_left)}
end
