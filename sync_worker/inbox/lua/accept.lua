-- Store a request's new changes, mark them as seen, make their mailboxes due: one step (B2.3).
-- Refused as a whole in a full store (B6.12).
--
-- ARGV[1] MessagePack: {full_share, dedupe_ms, wake_grace_ms, changes, undecodable,
-- reconcile, counts, merges, alias_ms, definitions}
--   full_share   the share of maxmemory from which on nothing is accepted
--   dedupe_ms    a third of the time for which a change is remembered; 0 remembers nothing
--   changes      flat: mailbox, identity or '', urgent (1/0), stored form, ...
--   undecodable  list of dead letters, each with `change`, the stored form of what came
--   reconcile    flat: source, why, ...
--   counts       flat: metric, number, ...
--   merges       flat: mailbox of a record that was merged, mailbox of the one that is left, ...
--   alias_ms     how long that is remembered
--   definitions  Salesforce message definitions that carry the link field
-- Returns {accepted, duplicates, mailboxes to wake ...}, or the error FULL.

local function memory_share()
  local info = redis.call('INFO', 'memory')
  local limit = tonumber(string.match(info, '\nmaxmemory:(%d+)'))
  if not limit or limit == 0 then return 0 end
  return tonumber(string.match(info, '\nused_memory:(%d+)')) / limit
end

local full_share, dedupe_ms, wake_grace_ms, changes, undecodable, reconcile, counts, merges, alias_ms, definitions =
  unpack(cmsgpack.unpack(ARGV[1]))

local share = memory_share()
if share > full_share then
  return redis.error_reply('FULL the store is above its share of maxmemory')
end

local now = now_ms()
local period = dedupe_ms > 0 and math.floor(now / dedupe_ms) or 0
local answer = {0, 0}

-- Identities are kept in sets of a third of the window each, so that forgetting costs nothing
-- and no identity needs a key of its own.
local function seen_before(identity)
  if dedupe_ms == 0 or identity == '' then return false end
  for back = 0, 3 do
    if redis.call('SISMEMBER', 'sw:seen:' .. (period - back), identity) == 1 then return true end
  end
  redis.call('SADD', 'sw:seen:' .. period, identity)
  return false
end

local function owe(mailbox, urgent)
  local work = redis.call('HMGET', 'sw:work:' .. mailbox, 'until', 'failures')
  if work[1] and tonumber(work[1]) > now then
    -- A worker holds it: what is stored now stays behind when it settles. Only if it postpones
    -- must it know that an urgent change came (B6.8).
    if urgent == 1 then redis.call('HSET', 'sw:work:' .. mailbox, 'urgent', '1') end
    return
  end
  if work[2] and urgent == 1 then redis.call('HDEL', 'sw:work:' .. mailbox, 'failures') end
  local due = redis.call('ZSCORE', 'sw:due', mailbox)
  if due and (tonumber(due) <= now or urgent == 0) then return end
  set_due(mailbox, now, now + wake_grace_ms)
  answer[#answer + 1] = mailbox
end

for i = 1, #changes, 4 do
  local mailbox, identity, urgent, stored = changes[i], changes[i + 1], changes[i + 2], changes[i + 3]
  if seen_before(identity) then
    answer[2] = answer[2] + 1
  else
    answer[1] = answer[1] + 1
    redis.call('HSET', 'sw:box:' .. mailbox, redis.call('INCR', 'sw:seq'), now .. '|' .. stored)
    owe(mailbox, urgent)
  end
end
if answer[1] > 0 and dedupe_ms > 0 then
  redis.call('PEXPIRE', 'sw:seen:' .. period, dedupe_ms * 5)
end

note_merges(merges, alias_ms)
for _, definition in ipairs(definitions) do redis.call('SADD', 'sw:definitions', definition) end
for _, letter in ipairs(undecodable) do
  -- A sender repeats what is answered 400: one copy of a body is enough.
  local known = redis.call('HEXISTS', 'sw:dead:open', open_key(letter.reason, '', letter.digest)) == 1
  bury(letter, known and {} or {redis.call('INCR', 'sw:seq'), now .. '|' .. letter.change}, now)
end
for i = 1, #reconcile, 2 do
  redis.call('HSETNX', 'sw:reconcile', reconcile[i], now .. '|' .. reconcile[i + 1])
end
count('accepted', answer[1])
count('duplicates', answer[2])
for i = 1, #counts, 2 do count(counts[i], counts[i + 1]) end
return answer
