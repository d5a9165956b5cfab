-- Say what becomes of releases that are held (B5.10).
--
-- ARGV: mailbox, id under which they were seen, 'approved' or 'discarded', wake grace in ms
-- Returns 1 if they were held under that id; a plan made anew is another one, which nobody has seen.

local mailbox = ARGV[1]
local held = redis.call('HGET', 'sw:held', mailbox)
held = held and cjson.decode(held)
if not held or held.id ~= ARGV[2] then return 0 end
redis.call('HDEL', 'sw:held', mailbox)
redis.call('HSET', 'sw:work:' .. mailbox, 'brake', ARGV[3] .. ' ' .. (held.releases or ''))
urge(mailbox, now_ms(), tonumber(ARGV[4]))
return 1
