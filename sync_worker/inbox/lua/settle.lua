-- Give changes their outcome: audit line, watermark, dead letters written and closed, changes
-- removed, leases given back: one step (B6.8).
--
-- ARGV[1] mailbox, ARGV[2] token, ARGV[3] wake grace in ms, ARGV[4] days the audit is kept
-- ARGV[5] MessagePack {audit, marks, satisfied, ended, letters, customers, reasons, counts,
--         answer_lost}
--   audit      list of {number, field, value, ...}: the audit line of each settled change
--   marks      flat: field of sw:mark, value, ...
--   satisfied  aspects that are true now: their older dead letters close (B6.10)
--   ended      aspects of changes that ended without that: closes only what was being replayed
--   letters    dead letters to write, each with `seqs`, the numbers of its changes
--   customers  the customers whose leases are given back
--   reasons    every reason a dead letter can have
--   counts     flat: metric, number, ...
--   answer_lost  whether the last write was not answered
-- Returns {-1, 0} if the lease is lost; {-2, ms} with nothing done while an unanswered write may yet
-- land on one of the customers, and for how long (B5.3); else {changes the mailbox still holds, 0}.

local mailbox, token, wake_grace_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local audit, marks, satisfied, ended, letters, customers, reasons, counts, answer_lost = unpack(cmsgpack.unpack(ARGV[5]))
if lease_lost(mailbox, token) then return {-1, 0} end

local now = now_ms()
local box_key, work_key, mark_key = 'sw:box:' .. mailbox, 'sw:work:' .. mailbox, 'sw:mark:' .. mailbox

for _, customer in ipairs(customers) do
  local suspect = redis.call('GET', 'sw:suspect:' .. customer)
  if suspect and suspect ~= token then
    return {-2, redis.call('PTTL', 'sw:suspect:' .. customer)}
  end
end

for i = 1, #marks, 2 do redis.call('HSET', mark_key, marks[i], marks[i + 1]) end

local buried = {}
for _, letter in ipairs(letters) do
  local changes = {}
  for _, seq in ipairs(letter.seqs) do
    local stored = redis.call('HGET', box_key, seq)
    if stored then
      changes[#changes + 1] = seq
      changes[#changes + 1] = stored
    end
  end
  buried[letter] = changes
end

local oldest = string.format('%.0f', now - tonumber(ARGV[4]) * 86400000)
for _, line in ipairs(audit) do
  local seq = table.remove(line, 1)
  if redis.call('HDEL', box_key, seq) == 1 then
    redis.call('XADD', 'sw:audit', 'MINID', '~', oldest, '*', unpack(line))
  end
end

-- `kept` is the reason under which a change of the aspect is buried now: that letter stays.
local function close_letters(aspect, also_open, kept)
  for _, reason in ipairs(reasons) do
    local id = redis.call('HGET', 'sw:dead:open', open_key(reason, aspect, mailbox))
    if id and reason ~= kept then
      local replaying = redis.call('HGET', 'sw:dead:' .. id, 'state') == 'replaying'
      if replaying and not waits_in_box(id, mailbox) then
        close_dead_letter(id, also_open and 'resolved' or 'superseded', now)
      elseif also_open and not replaying then
        close_dead_letter(id, 'superseded', now)
      end
    end
  end
end
for _, aspect in ipairs(satisfied) do close_letters(aspect, true, nil) end
for _, aspect in ipairs(ended) do close_letters(aspect, false, nil) end
for _, letter in ipairs(letters) do
  close_letters(letter.aspect, false, letter.reason)
  bury(letter, buried[letter], now)
end

for i = 1, #counts, 2 do count(counts[i], counts[i + 1]) end
release_customers(customers, token, answer_lost)
redis.call('HDEL', work_key, 'token', 'until')
local left = redis.call('HLEN', box_key)
if left == 0 then
  redis.call('DEL', work_key)
  redis.call('ZREM', 'sw:due', mailbox)
  redis.call('ZREM', 'sw:wake', mailbox)
else
  redis.call('HDEL', work_key, 'failures', 'attempts', 'urgent')
  set_due(mailbox, now, now + wake_grace_ms)
end
return {left, 0}
