-- Give changes their outcome: audit line, marks, dead letters written and closed, changes removed,
-- leases given back: one step (B6.8).
--
-- ARGV[1] mailbox that was claimed, ARGV[2] token, ARGV[3] wake grace in ms, ARGV[4] days the audit is
-- kept, ARGV[5] MessagePack {boxes, letters, customers, reasons, aspects, counts, answer_lost,
-- dry_run, later_ms}
--   boxes      list of {mailbox, due before, audit, marks, forgotten, satisfied, ended, kept}, the one
--              that was claimed first:
--     due before  when one that was joined was due, or ''
--     audit       list of {number, kept as, field, value, ...}: the audit line of each settled change;
--                 `kept as` is the outcome under which a dry run may keep it, else ''
--     marks       flat: field of sw:mark, value, ...
--     forgotten   fields of sw:mark to remove
--     satisfied   aspects that are true now: their older dead letters close (B6.10)
--     ended       aspects of changes that ended without that: closes only what was being replayed
--     kept        how many of its changes are left for later
--   letters    dead letters to write, each with `changes`: flat: mailbox, number, ...
--   customers  the customers whose leases are given back
--   reasons    every reason a dead letter can have
--   aspects    every aspect a change can have
--   counts     flat: metric, number, ...
--   answer_lost  whether the last write was not answered
--   dry_run    whether nothing was written, so that nothing is closed and all is kept (B5.9)
--   later_ms   when the mailbox is due again if it holds nothing but what was left for later
-- Returns {-1, 0} if a lease is lost; {-2, ms} with nothing done while an unanswered write may yet
-- land on one of the customers, and for how long (B5.3); else {changes the mailbox still holds, 0}.

local mailbox, token, wake_grace_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local boxes, letters, customers, reasons, aspects, counts, answer_lost, dry_run, later_ms = unpack(cmsgpack.unpack(ARGV[5]))
for _, box in ipairs(boxes) do
  if lease_lost(box[1], token) then return {-1, 0} end
end

local now = now_ms()
for _, customer in ipairs(customers) do
  local suspect = redis.call('GET', 'sw:suspect:' .. customer)
  if suspect and suspect ~= token then
    return {-2, redis.call('PTTL', 'sw:suspect:' .. customer)}
  end
end

local buried = {}
for _, letter in ipairs(letters) do
  local changes = {}
  for i = 1, #letter.changes, 2 do
    local stored = redis.call('HGET', 'sw:box:' .. letter.changes[i], letter.changes[i + 1])
    if stored then
      changes[#changes + 1] = letter.changes[i + 1]
      changes[#changes + 1] = stored
    end
  end
  buried[letter] = changes
end

-- A dry run keeps what it would have done, and all that comes of the same record after that: it would
-- have been judged otherwise, had the first been done (B5.9).
local function keep_of_dry_run(name, seq, kept_as, would)
  local kept = 'sw:would:of:' .. name
  if not would and redis.call('SCARD', kept) == 0 then return end
  local stored = redis.call('HGET', 'sw:box:' .. name, seq)
  if stored then
    redis.call('HSET', 'sw:would', seq, kept_as .. '|' .. name .. '|' .. stored)
    redis.call('SADD', kept, seq)
  end
end

local oldest = string.format('%.0f', now - tonumber(ARGV[4]) * 86400000)
local function write_audit(name, lines)
  if dry_run then
    -- What it would do first: the others of the same burst go with it.
    for _, first in ipairs({true, false}) do
      for _, line in ipairs(lines) do
        if line[2] ~= '' and (string.sub(line[2], 1, 6) == 'would_') == first then
          keep_of_dry_run(name, line[1], line[2], first)
        end
      end
    end
  end
  for _, line in ipairs(lines) do
    local seq = table.remove(line, 1)
    table.remove(line, 1)
    if redis.call('HDEL', 'sw:box:' .. name, seq) == 1 then
      redis.call('XADD', 'sw:audit', 'MINID', '~', oldest, '*', unpack(line))
    end
  end
end

-- The open dead letters of a mailbox and aspect, by reason; false where there is none.
local function open_letters(of, aspect, with_reasons)
  local names = {}
  for at, reason in ipairs(with_reasons) do names[at] = open_key(reason, aspect, of) end
  return redis.call('HMGET', 'sw:dead:open', unpack(names))
end

-- `kept` is the reason under which a change of the aspect is buried now: that letter stays.
local function close_letters(of, aspect, also_open, kept)
  local ids = open_letters(of, aspect, reasons)
  for at, reason in ipairs(reasons) do
    local id = ids[at]
    if id and reason ~= kept then
      local replaying = redis.call('HGET', 'sw:dead:' .. id, 'state') == 'replaying'
      if replaying and not waits_in_box(id, of) then
        close_dead_letter(id, (also_open and not kept) and 'resolved' or 'superseded', now)
      elseif also_open and not replaying then
        close_dead_letter(id, 'superseded', now)
      end
    end
  end
end

-- What was being replayed and is in the mailbox no more has ended, whatever its changes ended as; a dry
-- run has not decided it.
local function end_replays(name)
  for _, aspect in ipairs(aspects) do
    for _, id in ipairs(open_letters(name, aspect, reasons)) do
      if id and redis.call('HGET', 'sw:dead:' .. id, 'state') == 'replaying' and not waits_in_box(id, name) then
        if dry_run then redis.call('HSET', 'sw:dead:' .. id, 'state', 'open')
        else close_dead_letter(id, 'superseded', now) end
      end
    end
  end
end

for _, box in ipairs(boxes) do
  local name, _, audit, marks, forgotten, satisfied, ended = unpack(box)
  local mark_key = 'sw:mark:' .. name
  if #marks > 0 then redis.call('HSET', mark_key, unpack(marks)) end
  if #forgotten > 0 then redis.call('HDEL', mark_key, unpack(forgotten)) end
  write_audit(name, audit)
  if not dry_run then
    for _, aspect in ipairs(satisfied) do close_letters(name, aspect, true, nil) end
    for _, aspect in ipairs(ended) do close_letters(name, aspect, false, nil) end
  end
end
for _, letter in ipairs(letters) do
  -- What failed for another reason was an older claim: a record has one (B6.10).
  if not dry_run then close_letters(letter.mailbox, letter.aspect, true, letter.reason) end
  bury(letter, buried[letter], now)
end
for _, box in ipairs(boxes) do
  if redis.call('HEXISTS', 'sw:work:' .. box[1], 'replayed_at') == 1 then end_replays(box[1]) end
end

for i = 1, #counts, 2 do count(counts[i], counts[i + 1]) end
release_customers(customers, token, answer_lost)
end_turn_alone(token)
local left = 0
for i, box in ipairs(boxes) do
  local name, work_key = box[1], 'sw:work:' .. box[1]
  local n = redis.call('HLEN', 'sw:box:' .. name)
  if i == 1 then left = n end
  -- One that was only in the way stays as it was, also if the brake holds it.
  if i == 1 or n == 0 or #box[3] > 0 then redis.call('HDEL', 'sw:held', name) end
  if n == 0 then
    clear_work(name)
  elseif i > 1 and #box[3] == 0 then
    let_go(name, token, box[2], now)
  else
    redis.call('HDEL', work_key, 'token', 'until', 'failures', 'attempts', 'urgent', 'undo', 'refused_at', 'brake',
      'alone', 'vanished', 'crashes')
    make_live(name)  -- what came meanwhile is not known to be a replay
    local due = n == box[8] and now + later_ms or now
    set_due(name, due, due > now and due or now + wake_grace_ms)
  end
end
return {left, 0}
