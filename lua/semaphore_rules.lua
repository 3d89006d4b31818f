-- The semaphore's rules, as in steindamm/rules/semaphore.py, which explains them; times in microseconds.
-- terms: capacity, lease, presence, counted (1 where PUBLISH counts every listener: no cluster).

local ceil, floor, min, max, ENDLESS = math.ceil, math.floor, math.min, math.max, math.huge
local FIRST_GUESS, WEIGHT = 1000000, 0.1
local OUT, HOLDING, WAITING = 0, 1, 2
local STAY_NO, STAY_LISTENING = 0, 1
local META = '<dddddddddddddd'
local STATE, LEASES, LISTENING, AWAY, PRESENT = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

local function load_semaphore()
  local s = {}
  local packed = redis.call('GET', STATE)
  if packed then
    s.held, s.listening, s.waiting, s.earliest, s.fading, s.seen, s.fence, s.arrivals, s.mean,
      s.granted, s.deferred, s.refused, s.until_leases, s.until_waiters = struct.unpack(META, packed)
  else
    s.held, s.listening, s.waiting, s.earliest, s.fading, s.seen = 0, 0, 0, ENDLESS, ENDLESS, -ENDLESS
    s.fence, s.arrivals, s.mean, s.granted, s.deferred, s.refused = 0, 0, 0, 0, 0, 0
    s.until_leases, s.until_waiters = -ENDLESS, -ENDLESS
  end
  return s
end

-- What is kept lives twice as long as it must, so that most requests need not prolong it.
local function save_semaphore(s, now, terms)
  local needed = max(s.until_leases, s.until_waiters) - now
  redis.call('SET', STATE,
    struct.pack(META, s.held, s.listening, s.waiting, s.earliest, s.fading, s.seen, s.fence, s.arrivals, s.mean,
      s.granted, s.deferred, s.refused, s.until_leases, s.until_waiters),
    'PX', ceil(max(needed, terms.lease) / 1000) + 1)
end

local function keep_leases(s, now, span)
  if s.until_leases >= now + span then return end
  s.until_leases = now + 2 * span
  redis.call('PEXPIRE', LEASES, ceil(2 * span / 1000) + 1)
end

local function keep_waiters(s, now, span, line)
  if s.until_waiters < now + span then s.until_waiters = now + 2 * span end
  local left = ceil((s.until_waiters - now) / 1000) + 1
  redis.call('PEXPIRE', line, left)
  redis.call('PEXPIRE', PRESENT, left)
end

local function earliest_of(key)
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2]) or ENDLESS
end

local function shift_ends(key, shift)
  local all = redis.call('ZRANGE', key, 0, -1)
  for _, member in ipairs(all) do redis.call('ZINCRBY', key, -shift, member) end
end

local function set_back(s, shift)
  s.earliest, s.fading = s.earliest - shift, s.fading - shift
  s.until_leases, s.until_waiters = s.until_leases - shift, s.until_waiters - shift
  shift_ends(LEASES, shift)
  shift_ends(PRESENT, shift)
end

local function next_fence(s, now)
  s.fence = max(s.fence + 1, floor(now))
  return s.fence
end

-- A new lease; nil where the holder has one already.
local function lease(s, holder, now, end_)
  if redis.call('ZADD', LEASES, 'NX', end_, holder) == 0 then return nil end
  keep_leases(s, now, end_ - now)
  s.held = s.held + 1
  s.earliest = min(s.earliest, end_)
  s.granted = s.granted + 1
  return next_fence(s, now)
end

local function renewed(s, terms, holder, now)
  redis.call('ZADD', LEASES, now + terms.lease, holder)
  keep_leases(s, now, terms.lease)
  return HOLDING, next_fence(s, now), 0
end

local function forget(s, waiter)
  if s.waiting == 0 or redis.call('ZREM', PRESENT, waiter) == 0 then return end
  s.waiting = s.waiting - 1
  s.listening = s.listening - redis.call('ZREM', LISTENING, waiter)
  redis.call('ZREM', AWAY, waiter)
end

local function drop_vanished(s, now)
  if now < s.fading then return end
  for _, waiter in ipairs(redis.call('ZRANGEBYSCORE', PRESENT, '-inf', now)) do forget(s, waiter) end
  s.fading = earliest_of(PRESENT)
end

local function expected(s, terms, number)
  local ahead = 0
  if s.waiting > 0 then
    local below = '(' .. string.format('%.17g', number)
    ahead = redis.call('ZCOUNT', LISTENING, '-inf', below) + redis.call('ZCOUNT', AWAY, '-inf', below)
  end
  return ceil((ahead + 1) * (s.mean ~= 0 and s.mean or FIRST_GUESS) / terms.capacity)
end

-- Tells the process that `waiter` belongs to. False where it is certain that nobody heard it.
local function tell(terms, waiter, fence)
  local process = string.match(waiter, '^[^:]*')
  local heard = redis.call('PUBLISH', 'steindamm:' .. process, waiter .. ' ' .. string.format('%.0f', fence))
  return heard > 0 or terms.counted == 0
end

local function hand_over(s, terms, now)
  while s.listening > 0 and s.held < terms.capacity do
    local waiter = redis.call('ZRANGE', LISTENING, 0, 0)[1]
    if not waiter then
      s.listening = 0
      return
    end
    local end_ = tonumber(redis.call('ZSCORE', PRESENT, waiter) or 0)
    forget(s, waiter)
    if end_ > now and tell(terms, waiter, max(s.fence + 1, floor(now))) then lease(s, waiter, now, end_) end
  end
end

local function tend(s, terms, now)
  if now < s.seen then set_back(s, s.seen - now) end
  s.seen = now
  if now >= s.earliest then
    redis.call('ZREMRANGEBYSCORE', LEASES, '-inf', now)
    s.held = redis.call('ZCARD', LEASES)
    s.earliest = earliest_of(LEASES)
  end
  if s.listening > 0 then hand_over(s, terms, now) end
end

local function enter(s, terms, now, asker, number, stay, slack)
  tend(s, terms, now)
  forget(s, asker)
  if s.held < terms.capacity then
    local fence = lease(s, asker, now, now + terms.lease)
    if fence then return HOLDING, fence, 0 end
    return renewed(s, terms, asker, now)
  end
  if redis.call('ZSCORE', LEASES, asker) then return renewed(s, terms, asker, now) end
  drop_vanished(s, now)
  if stay == STAY_NO then
    s.refused = s.refused + 1
    return OUT, 0, expected(s, terms, ENDLESS)
  end
  if number <= 0 or number > s.arrivals then
    s.arrivals = s.arrivals + 1
    number = s.arrivals
  end
  local wait = expected(s, terms, number)
  local line, span = LISTENING, terms.presence
  if stay == STAY_LISTENING then
    s.listening = s.listening + 1
  else
    line, span = AWAY, wait + slack
    s.deferred = s.deferred + 1
  end
  redis.call('ZADD', line, number, asker)
  redis.call('ZADD', PRESENT, now + span, asker)
  s.waiting = s.waiting + 1
  s.fading = min(s.fading, now + span)
  keep_waiters(s, now, span, line)
  return WAITING, number, wait
end

local function leave(s, terms, now, asker, held)
  tend(s, terms, now)
  forget(s, asker)
  if redis.call('ZREM', LEASES, asker) == 0 then return OUT, 0, 0 end
  s.held = s.held - 1
  if held >= 0 then s.mean = s.mean ~= 0 and s.mean + (held - s.mean) * WEIGHT or held end
  tend(s, terms, now)
  return HOLDING, 0, 0
end

local function give_up(s, terms, now, asker)
  tend(s, terms, now)
  if redis.call('ZSCORE', LEASES, asker) then return renewed(s, terms, asker, now) end
  forget(s, asker)
  s.refused = s.refused + 1
  return OUT, 0, expected(s, terms, ENDLESS)
end

local function renew(s, terms, now, asker, number)
  tend(s, terms, now)
  if redis.call('ZSCORE', LEASES, asker) then return renewed(s, terms, asker, now) end
  if number > 0 then return enter(s, terms, now, asker, number, STAY_LISTENING, 0) end
  return OUT, 0, 0
end
