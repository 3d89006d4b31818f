-- Tells people what is remembered of a semaphore, and changes nothing.
--
-- KEYS     as for its requests
-- ARGV[1]  how many holders are listed at most
--
-- Returns the server's time (us), the state in hex, how many hold a slot, how many wait; then of each holder when its
-- lease ends (us), its fencing number (0 where none is kept), and who it is, in hex.

local now = now_us()
local after = '(' .. string.format('%.0f', now)
local reply = {
  now,
  hex(redis.call('GET', KEYS[1])),
  redis.call('ZCOUNT', KEYS[2], after, '+inf'),
  redis.call('ZCOUNT', KEYS[5], after, '+inf'),
}
local leases = redis.call('ZRANGEBYSCORE', KEYS[2], after, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[1])
for i = 1, #leases, 2 do
  reply[#reply + 1] = math.floor(tonumber(leases[i + 1]))
  reply[#reply + 1] = tonumber(redis.call('HGET', KEYS[6], leases[i]) or 0)
  reply[#reply + 1] = hex(leases[i])
end
return reply
