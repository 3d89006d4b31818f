-- Decides on requests to several limits at once, in their order.
--
-- KEYS     of each limit what its own script has: one of a bucket, six of a semaphore
-- ARGV[1]  the limits' kinds, a letter each: b a bucket, s a semaphore
-- ARGV[2]  their terms, one after the other, as their own scripts have them
-- ARGV[3]  the requests, in doubles: longest wait accepted (us), horizon of bookings (us), stay (0 no, 1 listening,
--          2 away), slack (us), what (0 take, 1 look what a take would be answered, 2 give back what was granted, 3 give
--          back what was booked); then for each limit the cost (tokens) and the turn or arrival number that the asker
--          brings along (0 none), or to give back: the turn, or for how long a slot was held (us, below 0 for not used)
-- ARGV[4…] who asks, for each request and each of its semaphores: "<process>:<count>"
--
-- Returns for each request, in integers: the verdict (0 refused, 1 granted, 2 waiting, 3 a cost above a capacity),
-- which limit decided (from 0), the wait (us, rounded up; -1 for ever); for each limit what it gave: a turn (us), a
-- fencing number, an arrival number where the asker stands in line, 0 for nothing; and of each bucket
-- when its clock was last set (us), 0 where it is the server's, of each semaphore for how long it is closed (us).

local now, kinds, packed_terms, requests = now_us(), ARGV[1], ARGV[2], ARGV[3]

local function load_parts()
  local parts, at, key = {}, 1, 1
  for i = 1, #kinds do
    local part, terms = { kind = string.sub(kinds, i, i), touched = false }, {}
    if part.kind == 'b' then
      terms.capacity, terms.amount, terms.step, terms.initial, terms.anchor, terms.keep, at =
        struct.unpack('<dddddd', packed_terms, at)
      part.key, part.state, key = KEYS[key], load_bucket(redis.call('GET', KEYS[key]), terms, now), key + 1
    else
      terms.capacity, terms.lease, terms.presence, terms.counted, at = struct.unpack('<dddd', packed_terms, at)
      part.state, key = load_semaphore(key, redis.call('GET', KEYS[key]), terms), key + 6
    end
    part.terms, parts[i] = terms, part
  end
  return parts
end

-- A limit that was not touched stays as it was, and a semaphore that nobody has used is not begun.
local function save_parts(parts)
  for _, part in ipairs(parts) do
    if part.kind == 's' then
      if part.touched or not part.state.is_new then save_semaphore(part.state, now, part.terms) end
    elseif part.touched then
      save_bucket(part.key, part.terms, part.state, now)
    end
  end
end

local parts, at, asker, reply = load_parts(), 1, 4, {}
while at <= #requests do
  local request, asks = {}, {}
  request.accept, request.horizon, request.stay, request.slack, request.what, at =
    struct.unpack('<ddddd', requests, at)
  for i, part in ipairs(parts) do
    local ask = {}
    ask.cost, ask.turn, at = struct.unpack('<dd', requests, at)
    if part.kind == 's' then ask.asker, asker = ARGV[asker], asker + 1 end
    asks[i] = ask
  end
  local verdict, which, wait, given = decide_all(parts, now, asks, request)
  reply[#reply + 1] = verdict
  reply[#reply + 1] = which - 1
  reply[#reply + 1] = wait == math.huge and -1 or math.ceil(math.min(wait, FOREVER))
  for _, number in ipairs(given) do reply[#reply + 1] = math.ceil(math.min(number, FOREVER)) end
  for _, part in ipairs(parts) do reply[#reply + 1] = changed(part, now) end
end
save_parts(parts)
return reply
