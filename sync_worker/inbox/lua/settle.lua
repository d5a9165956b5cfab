-- Give changes their outcome: audit line, marks, dead letters written and closed, changes removed,
-- leases given back: one step (B6.8).
--
-- ARGV[1] mailbox that was claimed, ARGV[2] token, ARGV[3] wake grace in ms, ARGV[4] days the audit is
-- kept, ARGV[5] MessagePack {boxes, letters, customers, reasons, counts, answer_lost, later_ms}
--   boxes      list of {mailbox, due before, audit, marks, forgotten, satisfied, ended, kept}, the one
--              that was claimed first:
--     due before  when one that was joined was due, or ''
--     audit       list of {number, tried, kept as, occurred at, field, value, ...}: the audit line of
--                 each settled change; in a dry run `tried` is its record and aspect, and `kept as`
--                 the outcome and mailbox under which it is kept, else both are ''
--     marks       flat: field of sw:mark, value, ...
--     forgotten   fields of sw:mark to remove
--     satisfied   aspects that are true now: their older dead letters close (B6.10)
--     ended       aspects of changes that ended without that: closes only what was being replayed
--     kept        how many of its changes are left for later
--   letters    dead letters to write, each with `changes`: flat: mailbox, number, ...
--   customers  the customers whose leases are given back
--   reasons    every reason a dead letter can have
--   counts     flat: metric, number, ...
--   answer_lost  whether the last write was not answered
--   later_ms   when the mailbox is due again if it holds nothing but what was left for later
-- Returns {-1, 0} if a lease is lost; {-2, ms} with nothing done while an unanswered write may yet
-- land on one of the customers, and for how long (B5.3); else {changes the mailbox still holds, 0}.

local mailbox, token, wake_grace_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local boxes, letters, customers, reasons, counts, answer_lost, later_ms = unpack(cmsgpack.unpack(ARGV[5]))
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

-- A dry run keeps what it would have done (B5.9). What is found to be so without a write, or to need
-- a person, overtakes what was kept before of the same record and aspect.
local function keep_of_dry_run(box_key, seq, tried, kept_as, occurred_at)
  local kept = 'sw:would:of:' .. tried
  if kept_as ~= '' then
    local stored = redis.call('HGET', box_key, seq)
    if stored then
      redis.call('HSET', 'sw:would', seq, kept_as .. '|' .. stored)
      redis.call('ZADD', kept, occurred_at, seq)
    end
    return
  end
  for _, older in ipairs(redis.call('ZRANGEBYSCORE', kept, '-inf', occurred_at)) do
    redis.call('HDEL', 'sw:would', older)
    redis.call('ZREM', kept, older)
  end
end

local oldest = string.format('%.0f', now - tonumber(ARGV[4]) * 86400000)
local function write_audit(box_key, lines)
  for _, line in ipairs(lines) do
    local seq, tried, kept_as, occurred_at = table.remove(line, 1), table.remove(line, 1),
      table.remove(line, 1), table.remove(line, 1)
    if tried ~= '' then keep_of_dry_run(box_key, seq, tried, kept_as, occurred_at) end
    if redis.call('HDEL', box_key, seq) == 1 then
      redis.call('XADD', 'sw:audit', 'MINID', '~', oldest, '*', unpack(line))
    end
  end
end

-- `kept` is the reason under which a change of the aspect is buried now: that letter stays.
local function close_letters(of, aspect, also_open, kept)
  for _, reason in ipairs(reasons) do
    local id = redis.call('HGET', 'sw:dead:open', open_key(reason, aspect, of))
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

for _, box in ipairs(boxes) do
  local name, _, audit, marks, forgotten, satisfied, ended = unpack(box)
  local mark_key = 'sw:mark:' .. name
  for i = 1, #marks, 2 do redis.call('HSET', mark_key, marks[i], marks[i + 1]) end
  for _, field in ipairs(forgotten) do redis.call('HDEL', mark_key, field) end
  write_audit('sw:box:' .. name, audit)
  for _, aspect in ipairs(satisfied) do close_letters(name, aspect, true, nil) end
  for _, aspect in ipairs(ended) do close_letters(name, aspect, false, nil) end
end
for _, letter in ipairs(letters) do
  -- What failed for another reason was an older claim: a record has one (B6.10).
  close_letters(letter.mailbox, letter.aspect, true, letter.reason)
  bury(letter, buried[letter], now)
end

for i = 1, #counts, 2 do count(counts[i], counts[i + 1]) end
release_customers(customers, token, answer_lost)
local left = 0
for i, box in ipairs(boxes) do
  local name, work_key = box[1], 'sw:work:' .. box[1]
  local n = redis.call('HLEN', 'sw:box:' .. name)
  if i == 1 then left = n end
  -- One that was only in the way stays as it was, also if the brake holds it.
  if i == 1 or n == 0 or #box[3] > 0 then redis.call('HDEL', 'sw:held', name) end
  if n == 0 then
    redis.call('DEL', work_key)
    redis.call('ZREM', 'sw:due', name)
    redis.call('ZREM', 'sw:wake', name)
  elseif i > 1 and #box[3] == 0 then
    let_go(name, token, box[2], now)
  else
    redis.call('HDEL', work_key, 'token', 'until', 'failures', 'attempts', 'urgent', 'undo', 'refused_at', 'brake')
    local due = n == box[8] and now + later_ms or now
    set_due(name, due, due > now and due or now + wake_grace_ms)
  end
end
return {left, 0}
