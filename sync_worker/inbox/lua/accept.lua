-- Store a request's new changes, mark them as seen, make their mailboxes due: one step (B2.3).
-- Refused as a whole in a full store (B6.12). Written for bodies of many events: what can be asked or
-- written once for all of them is, a part of AT_A_TIME at a time, for a call takes so many arguments
-- and no more.
--
-- ARGV[1] MessagePack: {full_share, dedupe_ms, wake_grace_ms, changes, undecodable,
-- reconcile, counts, merges, alias_ms, definitions}
--   full_share   the share of maxmemory from which on nothing is accepted
--   dedupe_ms    a third of the time for which a change is remembered; 0 remembers nothing
--   changes      {mailboxes, identities or '', whether urgent, stored forms}: a list each, as long as
--                there are changes
--   undecodable  list of dead letters, each with `change`, the stored form of what came
--   reconcile    flat: source, why, ...
--   counts       flat: metric, number, ...
--   merges       flat: mailbox of a record that was merged, mailbox of the one that is left, ...
--   alias_ms     how long that is remembered
--   definitions  Salesforce message definitions that carry the link field
-- Returns {accepted, duplicates, mailboxes to wake ...}, or the error FULL.

local AT_A_TIME = 1000  -- an even number: a part never ends between a score and its member
local FILLED_PER_MS = 4e6  -- bytes: more than any memory takes in
local MOST_TRUST_MS = 10  -- so soon a lower maxmemory is noticed

local function number_in(info, name)
  local _, at = string.find(info, '\n' .. name .. ':', 1, true)
  return at and tonumber(string.match(info, '^%d+', at + 1))
end

-- Whether the store is full. To ask costs as much as to store a dozen changes, so it is not asked again
-- while what was free cannot have been filled, however fast.
local function is_full(full_share)
  if redis.call('EXISTS', 'sw:room') == 1 then return false end
  local info = redis.call('INFO', 'memory')
  local limit = number_in(info, 'maxmemory')
  if not limit or limit == 0 then limit = math.huge end
  local room = limit * full_share - number_in(info, 'used_memory')
  local ms = math.min(MOST_TRUST_MS, math.floor(room / FILLED_PER_MS))
  if ms > 0 then redis.call('SET', 'sw:room', '1', 'PX', ms) end
  return room < 0
end

local full_share, dedupe_ms, wake_grace_ms, changes, undecodable, reconcile, counts, merges, alias_ms, definitions =
  unpack(cmsgpack.unpack(ARGV[1]))

if is_full(full_share) then
  return redis.error_reply('FULL the store is above its share of maxmemory')
end

local now = now_ms()
local mailboxes, identities, urgencies, stored = unpack(changes)

-- Run a command on all of `items`, and hand what it answers to `take`, with the place of the item before
-- the first that it is about.
local function in_parts(command, key, items, take)
  for before = 0, #items - 1, AT_A_TIME do
    local answer = redis.call(command, key, unpack(items, before + 1, math.min(before + AT_A_TIME, #items)))
    if take then take(answer, before) end
  end
end

-- Which of the changes are told again, by their place: of those that were remembered before, and of
-- those that stand twice in this request; and how many these are. Remembers the others.
--
-- Identities are kept in sets of a third of the window each, so that forgetting costs nothing
-- and no identity needs a key of its own.
local function find_repeated()
  local repeated, n = {}, 0
  if dedupe_ms == 0 or #identities == 0 then return repeated, n end
  local period = math.floor(now / dedupe_ms)
  local function note(found, before)
    for i = 1, #found do
      if found[i] == 1 then repeated[before + i] = true end
    end
  end
  for back = 0, 3 do
    local key = 'sw:seen:' .. (period - back)
    if redis.call('EXISTS', key) == 1 then in_parts('SMISMEMBER', key, identities, note) end
  end
  local fresh, known = {}, {}
  for i = 1, #identities do
    local identity = identities[i]
    if repeated[i] or known[identity] then
      repeated[i] = true
      n = n + 1
    elseif identity ~= '' then
      known[identity] = true
      fresh[#fresh + 1] = identity
    end
  end
  if #fresh > 0 then
    local key = 'sw:seen:' .. period
    in_parts('SADD', key, fresh)
    redis.call('PEXPIRE', key, dedupe_ms * 5, 'NX')
  end
  return repeated, n
end

-- Make a mailbox due that owed work before: `due` is since or from when. Tells whether to wake it.
local function owe_more(mailbox, urgent, due)
  local key = 'sw:work:' .. mailbox
  local work = redis.call('HMGET', key, 'until', 'failures', 'lane')
  local due_now, only_replayed = due <= now, work[3]
  if only_replayed then
    make_live(mailbox)
    redis.call('ZADD', 'sw:wake', due, mailbox)
  end
  if work[1] and tonumber(work[1]) > now then
    -- A worker holds it: what is stored now stays behind when it settles. Only if it postpones
    -- must it know that an urgent change came (B6.8).
    if urgent then redis.call('HSET', key, 'urgent', '1') end
    return false
  end
  if work[2] and urgent then redis.call('HDEL', key, 'failures') end
  if due_now and not only_replayed or not due_now and not urgent then return false end
  set_due(mailbox, now, now + wake_grace_ms)
  return true
end

local repeated, duplicates = find_repeated()
local accepted = #mailboxes - duplicates
local answer = {accepted, duplicates}
if accepted > 0 then
  local seq = redis.call('INCRBY', 'sw:seq', accepted) - accepted
  local at, wake = string.format('%.0f', now), string.format('%.0f', now + wake_grace_ms)
  local names, urgent = {}, {}
  for i = 1, #mailboxes do
    if not repeated[i] then
      local mailbox = mailboxes[i]
      seq = seq + 1
      redis.call('HSET', 'sw:box:' .. mailbox, seq, at .. '|' .. stored[i])
      if urgent[mailbox] == nil then names[#names + 1] = mailbox end
      urgent[mailbox] = urgent[mailbox] or urgencies[i]
    end
  end
  -- Most owe nothing yet, and nothing is known of their work: what is in sw:work is also in sw:due.
  local idle, n = {}, 0
  in_parts('ZMSCORE', 'sw:due', names, function(dues, before)
    for i = 1, #dues do
      local mailbox, due = names[before + i], dues[i]
      if not due then
        n = n + 2
        idle[n - 1], idle[n] = at, mailbox
      end
      if not due or owe_more(mailbox, urgent[mailbox], tonumber(due)) then answer[#answer + 1] = mailbox end
    end
  end)
  in_parts('ZADD', 'sw:due', idle)
  for i = 1, n, 2 do idle[i] = wake end
  in_parts('ZADD', 'sw:wake', idle)
end

note_merges(merges, alias_ms)
if #definitions > 0 then in_parts('SADD', 'sw:definitions', definitions) end
for _, letter in ipairs(undecodable) do
  -- A sender repeats what is answered 400: one copy of a body is enough.
  local known = redis.call('HEXISTS', 'sw:dead:open', open_key(letter.reason, '', letter.digest)) == 1
  bury(letter, known and {} or {redis.call('INCR', 'sw:seq'), now .. '|' .. letter.change}, now)
end
for i = 1, #reconcile, 2 do
  redis.call('HSETNX', 'sw:reconcile', reconcile[i], now .. '|' .. reconcile[i + 1])
end
count('accepted', accepted)
count('duplicates', duplicates)
for i = 1, #counts, 2 do count(counts[i], counts[i + 1]) end
return answer
