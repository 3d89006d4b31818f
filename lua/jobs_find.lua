-- Tells people where a job waits, and changes nothing.
--
-- KEYS, ARGV[1]  as for the clock
-- ARGV[2]  how long a job is remembered after its turn (us)
-- ARGV[3]  the job
--
-- Returns how long it waits (us) and its place, which is 1 for the next; twice -1 where it does not wait here.

local turn = redis.call('ZSCORE', KEYS[1], ARGV[3])
if not turn then return { -1, -1 } end
local clock = jobs_clock(now_us())
local gone = redis.call('ZCOUNT', KEYS[1], '-inf', string.format('(%.0f', clock.time - ARGV[2]))
local before = redis.call('ZRANK', KEYS[1], ARGV[3])
return { math.ceil(clock.real(turn - clock.time)), math.max(0, before - gone) + 1 }
