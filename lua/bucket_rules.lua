-- The token bucket's rules, as in steindamm/rules/bucket.py, which explains them; times in microseconds.
-- terms: capacity, amount, step, initial, anchor, keep. state: line, pace, grid, granted, deferred, refused, waited.

local abs, ceil, floor, min, max, ENDLESS = math.abs, math.ceil, math.floor, math.min, math.max, math.huge
local DUST, ROUNDING = 1e-9, 1
local FOREVER = 9e15 -- 285 years: what is longer no reply, and no key's expiry, could hold
local REFUSED, GRANTED, BOOKED, EARLY = 0, 1, 2, 3
local STATE = '<ddddddd'

local function grid_start(terms, now)
  if terms.anchor < 0 or terms.step == 0 then return now end
  return terms.anchor + floor((now - terms.anchor) / terms.step) * terms.step
end

local function load_bucket(key, terms, now)
  local state = {}
  local packed = redis.call('GET', key)
  if packed then
    state.line, state.pace, state.grid, state.granted, state.deferred, state.refused, state.waited =
      struct.unpack(STATE, packed)
  else
    state.line, state.pace, state.grid = terms.initial, terms.initial, grid_start(terms, now)
    state.granted, state.deferred, state.refused, state.waited = 0, 0, 0, 0
  end
  return state
end

local function refill(terms, state, now)
  local step, capacity = terms.step, terms.capacity
  local elapsed = now - state.grid
  if step > 0 and elapsed >= step then
    local steps = floor(elapsed / step)
    state.line = state.line + steps * terms.amount
    state.pace = state.pace + steps * terms.amount
    state.grid = state.grid + steps * step
  elseif elapsed < 0 and (terms.anchor < 0 or elapsed <= -step) then
    state.grid = grid_start(terms, now)
  end
  if state.line >= capacity and state.pace >= capacity then state.grid = grid_start(terms, now) end
  state.line = min(capacity, state.line)
  state.pace = min(capacity, state.pace)
end

local function turn_of(terms, state, level, now)
  if level >= -DUST then return now end
  if terms.step == 0 then return ENDLESS end
  return state.grid + ceil((-level - DUST) / terms.amount) * terms.step
end

local function take(terms, state, now, cost, accept, horizon)
  refill(terms, state, now)
  local turn = turn_of(terms, state, min(state.line, state.pace) - cost, now)
  local wait = turn - now
  if wait <= accept and wait < ENDLESS then
    state.line = state.line - cost
    state.pace = state.pace - cost
    state.granted = state.granted + 1
    state.waited = state.waited + wait
    return GRANTED, wait, turn
  end
  if wait <= horizon then
    state.line = state.line - cost
    state.deferred = state.deferred + 1
    state.waited = state.waited + wait
    return BOOKED, wait, turn
  end
  state.refused = state.refused + 1
  return REFUSED, wait, turn
end

local function come_back(terms, state, now, cost, accept, horizon, turn)
  refill(terms, state, now)
  turn = max(now, min(turn, turn_of(terms, state, state.line, now)))
  if turn - now > accept then return EARLY, turn - now, turn end
  local start = max(turn, turn_of(terms, state, state.pace - cost, now))
  if start - now > accept or start == ENDLESS then return take(terms, state, now, cost, -1, horizon) end
  state.pace = state.pace - cost
  state.granted = state.granted + 1
  state.waited = state.waited + (start - now)
  return GRANTED, start - now, start
end

local function give_back(terms, state, now, cost, turn, booked)
  refill(terms, state, now)
  local end_ = turn_of(terms, state, state.line, now)
  if turn > now and abs(turn - end_) > ROUNDING then return REFUSED, 0, 0 end
  if turn <= now and (turn < state.grid or end_ > now) then return REFUSED, 0, 0 end
  state.line = min(terms.capacity, state.line + cost)
  if not booked then state.pace = min(terms.capacity, state.pace + cost) end
  return GRANTED, 0, 0
end

local function kept_until(terms, state, used)
  local kept = used + terms.keep
  if terms.step == 0 then return kept end
  return max(kept, turn_of(terms, state, min(state.line, state.pace) - terms.capacity, used))
end

local function save_bucket(key, terms, state, now)
  local keep = min(kept_until(terms, state, now) - now, FOREVER)
  redis.call('SET', key,
    struct.pack(STATE, state.line, state.pace, state.grid, state.granted, state.deferred, state.refused, state.waited),
    'PX', ceil(keep / 1000) + 1)
end
