-- The semaphore's rules, as in steindamm/rules/semaphore.py, which explains them; times in microseconds.
-- terms: capacity, lease, presence, counted (1 where PUBLISH counts every listener: no cluster). A state has live
-- where something is changed while the semaphore runs: reopens, capacity, set_at, note.

local ceil, floor, min, max, ENDLESS = math.ceil, math.floor, math.min, math.max, math.huge
local LEAST_GUESS, WEIGHT, OUTLIER, LONGEST_WAIT = 100000, 0.1, 4, 366 * 86400000000
local OUT, HOLDING, WAITING = 0, 1, 2
local STAY_NO, STAY_LISTENING = 0, 1
local META, META_SIZE, LIVE, YEAR = '<dddddddddddddddd', 128, '<ddd', 366 * 86400000000

local function earliest_of(key)
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2]) or ENDLESS
end

-- Where the state alone was evicted, the leases go on, and the waiters step in again when they renew.
local function begin_semaphore(s, terms)
  s.is_new = true
  redis.call('DEL', s.listening_key, s.away_key, s.present_key)
  s.capacity, s.held, s.listening, s.waiting = terms.capacity, redis.call('ZCARD', s.leases_key), 0, 0
  s.earliest, s.fading, s.seen = earliest_of(s.leases_key), ENDLESS, -ENDLESS
  s.fence, s.arrivals, s.mean, s.granted, s.deferred, s.refused, s.waited = 0, 0, 0, 0, 0, 0, 0
  s.until_leases, s.until_waiters = -ENDLESS, -ENDLESS
end

local function unpack_live_semaphore(packed)
  local live, at = {}, nil
  live.reopens, live.capacity, live.set_at, at = struct.unpack(LIVE, packed, META_SIZE + 1)
  live.note = string.sub(packed, at)
  return live
end

-- The keys from KEYS[at] on: the state, the leases, those who listen, those who are away, the presence of both, and
-- since when long leases are held.
local function load_semaphore(at, packed, terms)
  local s = {
    state_key = KEYS[at], leases_key = KEYS[at + 1], listening_key = KEYS[at + 2], away_key = KEYS[at + 3],
    present_key = KEYS[at + 4], since_key = KEYS[at + 5],
  }
  if packed then
    s.capacity, s.held, s.listening, s.waiting, s.earliest, s.fading, s.seen, s.fence, s.arrivals, s.mean,
      s.granted, s.deferred, s.refused, s.waited, s.until_leases, s.until_waiters = struct.unpack(META, packed)
    if #packed > META_SIZE then s.live = unpack_live_semaphore(packed) end
  else
    begin_semaphore(s, terms)
  end
  return s
end

-- What is kept lives twice as long as it must, so that most requests need not prolong it.
local function save_semaphore(s, now, terms)
  local needed, live = max(s.until_leases, s.until_waiters) - now, s.live
  local packed = struct.pack(META, s.capacity, s.held, s.listening, s.waiting, s.earliest, s.fading, s.seen, s.fence,
    s.arrivals, s.mean, s.granted, s.deferred, s.refused, s.waited, s.until_leases, s.until_waiters)
  if live then
    packed = packed .. struct.pack(LIVE, live.reopens, live.capacity, live.set_at) .. live.note
    needed = max(needed, live.reopens - now, live.capacity >= 0 and YEAR or 0)
  end
  redis.call('SET', s.state_key, packed, 'PX', ceil(max(needed, terms.lease) / 1000) + 1)
end

local function slots(terms, s)
  return s.live and s.live.capacity >= 0 and s.live.capacity or terms.capacity
end

local function has_room(s, now)
  return s.held < s.capacity and (not s.live or now >= s.live.reopens)
end

local function opens_in(s, now)
  return s.live and max(0, s.live.reopens - now) or 0
end

-- To be called after an end was added: a set that was empty is a new key.
local function keep_leases(s, now, span)
  if s.held > 1 and s.until_leases >= now + span then return end
  s.until_leases = max(s.until_leases, now + 2 * span)
  redis.call('PEXPIRE', s.leases_key, ceil((s.until_leases - now) / 1000) + 1)
end

-- To be called after one was added to a line: a set that was empty is a new key. The three sets have the same end. One
-- who goes away may never be back to be taken out, and the counts do not know of a set that was evicted.
local function keep_waiters(s, now, span, line)
  local is_long = s.until_waiters >= now + span
  if is_long and line == s.listening_key and min(s.listening, s.waiting) > 1 then return end
  if not is_long then s.until_waiters = now + 2 * span end
  local left = ceil((s.until_waiters - now) / 1000) + 1
  for _, key in ipairs(is_long and { line, s.present_key } or { s.listening_key, s.away_key, s.present_key }) do
    redis.call('PEXPIRE', key, left)
  end
end

local function shift_ends(key, shift)
  for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do redis.call('ZINCRBY', key, -shift, member) end
end

local function set_back(s, shift)
  s.earliest, s.fading = s.earliest - shift, s.fading - shift
  s.until_leases, s.until_waiters = s.until_leases - shift, s.until_waiters - shift
  if s.live then s.live.reopens = s.live.reopens - shift end
  shift_ends(s.leases_key, shift)
  shift_ends(s.present_key, shift)
end

local function next_fence(s, now)
  s.fence = max(s.fence + 1, floor(now))
  return s.fence
end

-- A new lease; nil where the holder has one already.
local function lease(s, holder, now, end_, arrival)
  if redis.call('ZADD', s.leases_key, 'NX', end_, holder) == 0 then return nil end
  s.held = s.held + 1
  keep_leases(s, now, end_ - now)
  s.earliest = min(s.earliest, end_)
  s.granted = s.granted + 1
  s.waited = s.waited + max(0, now - arrival)
  return next_fence(s, now)
end

local function renewed(s, terms, holder, now)
  redis.call('ZADD', s.leases_key, now + terms.lease, holder)
  keep_leases(s, now, terms.lease)
  s.earliest = min(s.earliest, now + terms.lease)
  return HOLDING, next_fence(s, now), 0
end

-- Returns the waiter's number, or 0 where it has no place.
local function forget(s, waiter)
  if s.waiting == 0 or redis.call('ZREM', s.present_key, waiter) == 0 then return 0 end
  s.waiting = s.waiting - 1
  local line, number = s.listening_key, redis.call('ZSCORE', s.listening_key, waiter)
  if number then
    s.listening = s.listening - 1
  else
    line, number = s.away_key, redis.call('ZSCORE', s.away_key, waiter)
  end
  redis.call('ZREM', line, waiter)
  return tonumber(number or 0)
end

local function forget_away(s, number)
  if number == 0 or s.waiting == s.listening then return end
  local score = string.format('%.17g', number)
  for _, waiter in ipairs(redis.call('ZRANGEBYSCORE', s.away_key, score, score)) do forget(s, waiter) end
end

local function drop_vanished(s, now)
  if now < s.fading then return end
  for _, waiter in ipairs(redis.call('ZRANGEBYSCORE', s.present_key, '-inf', now)) do forget(s, waiter) end
  s.fading, s.waiting = earliest_of(s.present_key), redis.call('ZCARD', s.present_key)
  if s.waiting == 0 then
    redis.call('DEL', s.listening_key, s.away_key)
    s.listening = 0
  end
end

local function guessed(s, now)
  return s.fence == 0 and LEAST_GUESS or max(now - s.fence, LEAST_GUESS)
end

-- How many are ahead in line: all, of a number that is greater than those that were given out.
local function ahead_of(s, number)
  if number > s.arrivals then return s.waiting end
  local below, ahead = '(' .. string.format('%.17g', number), 0
  if s.listening > 0 then ahead = redis.call('ZCOUNT', s.listening_key, '-inf', below) end
  if s.waiting > s.listening then ahead = ahead + redis.call('ZCOUNT', s.away_key, '-inf', below) end
  return ahead
end

local function expected(s, now, number)
  local mean, ahead = s.mean ~= 0 and s.mean or guessed(s, now), ahead_of(s, number)
  local closed = opens_in(s, now)
  if closed > 0 then ahead = max(-1, ahead - max(0, s.capacity - s.held)) end
  return min(ceil(closed + (ahead + 1) * mean / s.capacity), LONGEST_WAIT)
end

-- Tells the process that `waiter` belongs to. False where it is certain that nobody heard it.
local function tell(terms, waiter, fence)
  local process = string.match(waiter, '^[^:]*')
  local heard = redis.call('PUBLISH', 'steindamm:' .. process, waiter .. ' ' .. string.format('%.0f', fence))
  return heard > 0 or terms.counted == 0
end

local function hand_over(s, terms, now)
  while s.listening > 0 and has_room(s, now) do
    local waiter, number = unpack(redis.call('ZPOPMIN', s.listening_key))
    if not waiter then
      s.listening = 0
      return
    end
    local end_ = tonumber(redis.call('ZSCORE', s.present_key, waiter) or 0)
    s.listening, s.waiting = s.listening - 1, s.waiting - redis.call('ZREM', s.present_key, waiter)
    if end_ > now and tell(terms, waiter, max(s.fence + 1, floor(now))) then
      lease(s, waiter, now, end_, tonumber(number))
    end
  end
end

local function end_leases(s, now)
  for _, holder in ipairs(redis.call('ZRANGEBYSCORE', s.leases_key, '-inf', now)) do
    redis.call('ZREM', s.leases_key, holder)
    redis.call('HDEL', s.since_key, holder)
  end
  s.held = redis.call('ZCARD', s.leases_key)
  s.earliest = earliest_of(s.leases_key)
end

local function tend(s, terms, now)
  if now < s.seen then set_back(s, s.seen - now) end
  s.seen = now
  if s.live and s.live.capacity < 0 and now >= s.live.reopens then s.live = nil end
  if now >= s.earliest then end_leases(s, now) end
  if s.listening > 0 then hand_over(s, terms, now) end
end

local function refused(s, now)
  drop_vanished(s, now)
  s.refused = s.refused + 1
  return OUT, 0, expected(s, now, ENDLESS)
end

local function stand(s, terms, now, asker, number, stay, slack)
  drop_vanished(s, now)
  local wait = expected(s, now, number == 0 and ENDLESS or number)
  if number == 0 then number = max(s.arrivals + 1, floor(now)) end
  s.arrivals = max(s.arrivals, floor(number))
  local line, span = s.listening_key, terms.presence
  if stay == STAY_LISTENING then
    s.listening = s.listening + 1
  else
    line, span = s.away_key, wait + slack
    s.deferred = s.deferred + 1
  end
  redis.call('ZADD', line, number, asker)
  redis.call('ZADD', s.present_key, now + span, asker)
  s.waiting = s.waiting + 1
  s.fading = min(s.fading, now + span)
  keep_waiters(s, now, span, line)
  return WAITING, number, wait
end

local function step_in(s, terms, now, asker, number, stay, slack)
  local place = forget(s, asker)
  if place > 0 then number = place end
  if number <= max(0, now - LONGEST_WAIT) or number > max(s.arrivals, now) then number = 0 end
  forget_away(s, number)
  if has_room(s, now) then
    local fence = lease(s, asker, now, now + terms.lease, number > 0 and number or now)
    if fence then return HOLDING, fence, 0 end
    return renewed(s, terms, asker, now)
  end
  if redis.call('ZSCORE', s.leases_key, asker) then return renewed(s, terms, asker, now) end
  if stay == STAY_NO then return refused(s, now) end
  return stand(s, terms, now, asker, number, stay, slack)
end

local function enter(s, terms, now, asker, number, stay, slack)
  s.capacity = slots(terms, s)
  tend(s, terms, now)
  return step_in(s, terms, now, asker, number, stay, slack)
end

local function leave(s, terms, now, asker, held)
  tend(s, terms, now)
  if redis.call('ZREM', s.leases_key, asker) == 0 then
    forget(s, asker)
    return OUT, 0, 0
  end
  s.held = s.held - 1
  if held < 0 or held >= terms.lease / 4 then redis.call('HDEL', s.since_key, asker) end
  if held >= 0 then
    local usual = min(held, max(OUTLIER * s.mean, LEAST_GUESS))
    s.mean = s.mean ~= 0 and s.mean + (usual - s.mean) * WEIGHT or held
  end
  tend(s, terms, now)
  return HOLDING, 0, 0
end

local function give_up(s, terms, now, asker)
  tend(s, terms, now)
  if redis.call('ZSCORE', s.leases_key, asker) then return renewed(s, terms, asker, now) end
  forget(s, asker)
  return refused(s, now)
end

-- A lease that is renewed is a long one: from then on it is known since when it is held, for people.
local function renew(s, terms, now, asker, number)
  tend(s, terms, now)
  if redis.call('ZSCORE', s.leases_key, asker) then
    local standing, fence = renewed(s, terms, asker, now)
    redis.call('HSETNX', s.since_key, asker, string.format('%.0f', number < 0 and -number or fence))
    redis.call('PEXPIRE', s.since_key, ceil((s.until_leases - now) / 1000) + 1)
    return standing, fence, 0
  end
  if number > 0 then return step_in(s, terms, now, asker, number, STAY_LISTENING, 0) end
  return OUT, 0, 0
end
