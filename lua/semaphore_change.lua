-- Changes a semaphore while it runs, as steindamm/rules/semaphore_changes.py has it, and hands slots to those who listen.
--
-- KEYS     as for its requests
-- ARGV[1]  its terms, as for its requests
-- ARGV[2]  what is done: "close for" so long (us), "close until" a moment (us), "reopen", "override" with a capacity
-- ARGV[3]  the number that it needs, a little-endian double
-- ARGV[4]  who overrides, and with what, for people
--
-- Publishes as for its requests; and to each process that has somebody in line, where it is closed, "<who> 0": ask
-- when it opens. Returns for how long it is closed (us).

local terms = {}
terms.capacity, terms.lease, terms.presence, terms.counted = struct.unpack('<dddd', ARGV[1])
local what, number = ARGV[2], #ARGV[3] > 0 and struct.unpack('<d', ARGV[3])
local now = now_us()
local s = load_semaphore(1, redis.call('GET', KEYS[1]), terms)
tend(s, terms, now)
s.live = s.live or { reopens = -ENDLESS, capacity = -1, set_at = 0, note = '' }

if what == 'reopen' then
  s.live.reopens = -ENDLESS
elseif what == 'override' then
  s.live.capacity, s.live.set_at, s.live.note = number, now, ARGV[4]
  s.capacity = slots(terms, s)
else
  s.live.reopens = max(s.live.reopens, what == 'close until' and number or now + number)
end

tend(s, terms, now)
if opens_in(s, now) > 0 then
  local told = {}
  for _, waiter in ipairs(redis.call('ZRANGE', s.listening_key, 0, -1)) do
    local process = string.match(waiter, '^[^:]*')
    if not told[process] then redis.call('PUBLISH', 'steindamm:' .. process, waiter .. ' 0') end
    told[process] = true
  end
end
save_semaphore(s, now, terms)
return { ceil(opens_in(s, now)) }
