-- Put changes that a dry run kept back into their mailbox, those that are kept still: one step (B5.9).
--
-- ARGV: mailbox, wake grace in ms, then number, stored form, ... of its changes
-- Returns for each change 1 if it was put back, 0 if it is kept no longer.

local mailbox, wake_grace_ms = ARGV[1], tonumber(ARGV[2])
local answer, changes = {}, {}
for i = 3, #ARGV, 2 do
  local seq, stored = ARGV[i], ARGV[i + 1]
  if redis.call('HEXISTS', 'sw:would', seq) == 1 then
    changes[#changes + 1] = seq
    changes[#changes + 1] = stored
    answer[#answer + 1] = 1
  else
    -- Asked again after a lost answer, it says what it said: this replay put it back.
    answer[#answer + 1] = redis.call('HGET', 'sw:box:' .. mailbox, seq) == stored and 1 or 0
  end
end
if #changes > 0 then put_back(mailbox, changes, now_ms(), wake_grace_ms, 'replay') end
return answer
