-- The short way, as enter_at_once and leave_at_once in steindamm/rules/semaphore.py: one request, a slot that is
-- free or given back, nobody waits, no lease ends. It returns; every other case has changed nothing and goes on below,
-- with the time and the state that were read here.

local now, packed = now_us(), redis.call('GET', KEYS[1])

do
  local META, SIZE, WEIGHT, OUTLIER, LEAST_GUESS = '<dddddddddddddddd', 128, 0.1, 4, 100000
  local ceil, max, pack = math.ceil, math.max, struct.pack

  if packed and #packed == SIZE and #ARGV == 3 then
    local capacity, lease = struct.unpack('<dd', ARGV[1])
    local what, number = struct.unpack('<dd', ARGV[2])
    local known, held, listening, waiting, earliest, fading, seen, fence, arrivals, mean, granted, deferred, refused,
      waited, until_leases, until_waiters = struct.unpack(META, packed)
    local end_, quiet = now + lease, waiting == 0 and now >= seen and now < earliest

    if quiet and what == 0 and number == 0 and held < capacity
      and redis.call('ZADD', KEYS[2], 'NX', end_, ARGV[3]) == 1 then
      if held == 0 or until_leases < end_ then
        until_leases = max(until_leases, end_ + lease)
        redis.call('PEXPIRE', KEYS[2], ceil((until_leases - now) / 1000) + 1)
      end
      fence = max(fence + 1, now)
      redis.call('SET', KEYS[1],
        pack(META, capacity, held + 1, listening, waiting, math.min(earliest, end_), fading, now, fence, arrivals, mean,
          granted + 1, deferred, refused, waited, until_leases, until_waiters),
        'PX', ceil((max(until_leases, until_waiters) - now) / 1000) + 1)
      return {1, fence, 0}
    end

    local is_short = number >= 0 and number < lease / 4
    if quiet and what == 1 and is_short and redis.call('ZREM', KEYS[2], ARGV[3]) == 1 then
      local usual = math.min(number, max(OUTLIER * mean, LEAST_GUESS))
      mean = mean ~= 0 and mean + (usual - mean) * WEIGHT or number
      redis.call('SET', KEYS[1],
        pack(META, known, held - 1, listening, waiting, earliest, fading, now, fence, arrivals, mean,
          granted, deferred, refused, waited, until_leases, until_waiters),
        'PX', ceil(max(until_leases - now, until_waiters - now, lease) / 1000) + 1)
      return {1, 0, 0}
    end
  end
end
