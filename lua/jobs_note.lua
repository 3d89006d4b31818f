-- Notes which jobs wait at a limiter, for people. No decision reads it.
--
-- KEYS, ARGV[1]  as for the clock
-- ARGV[2]  how long a job is remembered after its turn (us)
-- ARGV[3]  and so on: a job, and its turn at a bucket (us), or how long it waits at a semaphore (us), or nothing where
--          it waits no more

local now, grace = now_us(), tonumber(ARGV[2])
local clock = jobs_clock(now)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', clock.time - grace))
local last = tonumber(redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2] or 0)
for i = 3, #ARGV, 2 do
  local job, number = ARGV[i], tonumber(ARGV[i + 1])
  if not number then
    redis.call('ZREM', KEYS[1], job)
  else
    local turn = ARGV[1] == 'bucket' and number or now + number
    redis.call('ZADD', KEYS[1], string.format('%.0f', turn), job)
    last = math.max(last, turn)
  end
end
redis.call('PEXPIRE', KEYS[1], math.max(1, math.ceil((clock.real(last - clock.time) + grace) / 1000)))
return { 1 }
