-- Makes a job of arq fit to be started again later, as if its worker had not taken it now.
--
-- KEYS     1 the job, 2 the count of its tries, 3 its booking
-- ARGV     1 the tries before this one, 2 the booking, 3 how long the job waits (ms), 4 how long it outlives
--          that at least (ms), 5 how long tries are remembered (ms)
--
-- The time that the job waits does not count towards its expiry: what is left of its life begins after it.
-- Returns 1, or 0 where the job has expired: then nothing is changed.

local left = redis.call('PTTL', KEYS[1])
if left == -2 then return 0 end
local wait, slack, kept = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local life = wait + math.max(left == -1 and kept or left, slack)
if left ~= -1 then redis.call('PEXPIRE', KEYS[1], life) end
redis.call('SET', KEYS[2], ARGV[1], 'PX', math.max(life, kept))
redis.call('SET', KEYS[3], ARGV[2], 'PX', life)
return 1
