-- The clock by which the turns at a limiter are told: a bucket's own, or the server's.
--
-- KEYS     1 the jobs that wait at the limiter, by their turns, 2 the bucket's state
-- ARGV[1]  'bucket' or 'semaphore'

local function jobs_clock(now)
  local packed = ARGV[1] == 'bucket' and redis.call('GET', KEYS[2])
  if packed and #packed > STATE_SIZE then
    local rules = live_rules()
    return rules.clock(rules.unpack(packed, STATE_SIZE + 1), now)
  end
  return { time = now, real = function(wait) return math.max(0, wait) end }
end
