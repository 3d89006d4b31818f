-- Changes a token bucket while it runs, as steindamm/rules/changes.py has it.
--
-- KEYS[1]  the bucket's state
-- ARGV[1]  its terms, as for its requests
-- ARGV[2]  what is done: "close for" so long (us), "close until" a moment (us), "reopen", "back off" for so long (us)
--          with what is left of the rate after a cut, the least share of it, and how long a whole one takes to come
--          back (us), "override" with capacity, refill amount, refill step, anchor of the refill grid, speed
-- ARGV[3]  the numbers that it needs, in little-endian doubles
-- ARGV[4]  who overrides, and with what, for people
--
-- Returns when the bucket's clock was last set (us), 0 where it goes by the server's.

local COOL = 1000000
local rules = live_rules()

local function is_on_calendar(terms) return terms.anchor >= 0 and terms.step > 0 end

local function set(live, now, time, share)
  live.changed, live.time, live.share = now, time, share
end

local function take_back_refills(terms, state, live, now)
  local here = math.max(live.grid, grid_start(terms, now))
  local function level(before, grid)
    return math.min(terms.capacity, before + math.floor((grid - live.grid) / terms.step + 0.5) * terms.amount)
  end
  state.line = level(live.line, here) - (level(live.line, state.grid) - state.line)
  state.pace = level(live.pace, here) - (level(live.pace, state.grid) - state.pace)
  state.grid = here
end

local function open(terms, state, live, now)
  local clock = rules.clock(live, now)
  if clock.opens_in == 0 then return end
  local time = clock.time
  if is_on_calendar(terms) then
    take_back_refills(terms, state, live, now)
    time = now
  end
  set(live, now, time, clock.share)
  live.since, live.span = now, 0
end

local function close(terms, state, live, now, until_)
  local clock
  terms, clock = rules.at(terms, state, now)
  if until_ <= math.max(now, live.since) then return end
  if is_on_calendar(terms) then
    open(terms, state, live, now)
    refill(terms, state, now)
    live.line, live.pace, live.grid = state.line, state.pace, state.grid
    refill(terms, state, until_)
    set(live, now, until_, clock.share)
  else
    set(live, now, clock.time, clock.share)
  end
  live.since, live.span = until_, until_ - now
end

local function back_off(terms, state, live, now, wait, factor, least, recovery)
  local view, clock = rules.at(terms, state, now)
  local may_slow = view.step > 0 and not is_on_calendar(view)
  if may_slow and clock.opens_in == 0 and now >= live.cut_at + COOL then
    refill(view, state, clock.time)
    state.line, state.pace = math.min(0, state.line), math.min(0, state.pace)
    set(live, now, clock.time, math.max(least, clock.share * factor))
    live.since, live.cut_at, live.recovery = now, now, recovery
  end
  close(terms, state, live, now, now + wait)
end

-- A quota's tokens are all it ever has: what is added to it is there at once. A calendar's grid follows it.
local function fit(old, new, state, time)
  if new.step == 0 then
    state.line = state.line + (new.capacity - old.capacity)
    state.pace = state.pace + (new.capacity - old.capacity)
  end
  if is_on_calendar(new) then state.grid = grid_start(new, time) end
end

local function override(terms, state, live, now, capacity, amount, step, anchor, speed)
  local old, until_ = rules.at(terms, state, now), live.since
  open(old, state, live, now)
  local clock = rules.clock(live, now)
  refill(old, state, clock.time)
  set(live, now, clock.time, clock.share)
  live.since = now
  live.capacity, live.amount, live.step, live.anchor, live.speed = capacity, amount, step, anchor, speed
  live.set_at, live.note = now, ARGV[4]
  fit(old, rules.at(terms, state, now), state, clock.time)
  close(terms, state, live, now, until_)
end

local changes = {
  ['close for'] = function(terms, state, live, now, wait) close(terms, state, live, now, now + wait) end,
  ['close until'] = close,
  ['reopen'] = function(terms, state, live, now) open(rules.at(terms, state, now), state, live, now) end,
  ['back off'] = back_off,
  ['override'] = override,
}

local terms = {}
terms.capacity, terms.amount, terms.step, terms.initial, terms.anchor, terms.keep = struct.unpack('<dddddd', ARGV[1])
local now = now_us()
local state = load_bucket(redis.call('GET', KEYS[1]), terms, now)
if not state.live then
  state.live = rules.new(now)
  if not is_young(state) then state.live.born = 0 end
end
changes[ARGV[2]](terms, state, state.live, now, struct.unpack('<' .. string.rep('d', #ARGV[3] / 8), ARGV[3]))
rules.end_live(state, rules.clock(state.live, now), now)
save_bucket(KEYS[1], terms, state, now)
return { state.live and state.live.changed or 0 }
