-- Name the due mailboxes that nobody has woken (B6.7), and take them as woken for the grace time,
-- so that a second beat does not name them again. What waited at a gate that is open again goes on,
-- as much at a time as does not hold up the store.
--
-- ARGV: how many at most, how many of those that only a replay put back (B7.3), wake grace in ms, gates ...
-- Returns {names of what is live, names of what only a replay put back}.

local AT_A_TIME = 1000
local TIMES = 5

local now = now_ms()
for i = 4, #ARGV do
  local parked = 'sw:parked:' .. ARGV[i]
  for _ = 1, is_shut(ARGV[i]) and 0 or TIMES do
    local members = redis.call('ZPOPMIN', parked, AT_A_TIME)
    if #members == 0 then break end
    for at = 1, #members, 2 do
      redis.call('ZADD', lane_of(members[at]), 'LT', members[at + 1], members[at])
    end
  end
end

local function take(lane, limit)
  local mailboxes = redis.call('ZRANGEBYSCORE', lane, '-inf', now, 'LIMIT', 0, math.max(0, limit))
  for _, mailbox in ipairs(mailboxes) do redis.call('ZADD', lane, now + tonumber(ARGV[3]), mailbox) end
  return mailboxes
end

local live = take('sw:wake', tonumber(ARGV[1]))
return {live, take('sw:wake:replay', math.min(tonumber(ARGV[1]) - #live, tonumber(ARGV[2])))}
