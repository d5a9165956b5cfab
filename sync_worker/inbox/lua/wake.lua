-- Name the due mailboxes that nobody has woken (B6.7), and take them as woken for the grace time,
-- so that a second beat does not name them again. What waited at a gate that is open again goes on,
-- as much at a time as does not hold up the store.
--
-- ARGV: how many at most, wake grace in ms, gates ...
-- Returns their names.

local AT_A_TIME = 1000
local TIMES = 5

local now = now_ms()
for i = 3, #ARGV do
  local parked = 'sw:parked:' .. ARGV[i]
  for _ = 1, is_shut(ARGV[i]) and 0 or TIMES do
    local members = redis.call('ZPOPMIN', parked, AT_A_TIME)
    if #members == 0 then break end
    local wake = {}
    for at = 1, #members, 2 do
      wake[at], wake[at + 1] = members[at + 1], members[at]
    end
    redis.call('ZADD', 'sw:wake', 'LT', unpack(wake))
  end
end
local mailboxes = redis.call('ZRANGEBYSCORE', 'sw:wake', '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))
for _, mailbox in ipairs(mailboxes) do
  redis.call('ZADD', 'sw:wake', now + tonumber(ARGV[2]), mailbox)
end
return mailboxes
