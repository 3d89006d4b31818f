-- The token bucket's rules, as in steindamm/rules/bucket.py, which explains them; times in microseconds.
-- terms: capacity, amount, step, initial, anchor, keep. state: line, pace, grid, granted, deferred, refused, waited,
-- and live where something is changed while the bucket runs.
--
-- A script makes its functions, and what they refer to, anew each time it runs: few of both make it fast.

local DUST, ROUNDING, YOUNG = 1e-9, 1, 100
local REFUSED, GRANTED, BOOKED, EARLY = 0, 1, 2, 3

local function grid_start(terms, now)
  if terms.anchor < 0 or terms.step == 0 then return now end
  return terms.anchor + math.floor((now - terms.anchor) / terms.step) * terms.step
end

local function refill(terms, state, now)
  local step, capacity = terms.step, terms.capacity
  local elapsed = now - state.grid
  if step > 0 and elapsed >= step then
    local steps = math.floor(elapsed / step)
    state.line = state.line + steps * terms.amount
    state.pace = state.pace + steps * terms.amount
    state.grid = state.grid + steps * step
  elseif elapsed < 0 and (terms.anchor < 0 or elapsed <= -step) then
    state.grid = grid_start(terms, now)
  end
  if state.line >= capacity and state.pace >= capacity then state.grid = grid_start(terms, now) end
  state.line = math.min(capacity, state.line)
  state.pace = math.min(capacity, state.pace)
end

local function turn_of(terms, state, level, now)
  if level >= -DUST then return now end
  if terms.step == 0 then return math.huge end
  return state.grid + math.ceil((-level - DUST) / terms.amount) * terms.step
end

local function pace_for(terms, state, start)
  local steps = terms.step > 0 and math.floor((start - state.grid) / terms.step + DUST) or 0
  return math.min(state.pace, terms.capacity - steps * terms.amount)
end

local function is_booked(state)
  return state.pace - state.line > DUST
end

local function is_young(state)
  return state.granted + state.deferred + state.refused < YOUNG
end

local function take(terms, state, now, cost, accept, horizon)
  refill(terms, state, now)
  local turn = turn_of(terms, state, math.min(state.line, state.pace) - cost, now)
  local wait = turn - now
  if wait <= accept and wait < math.huge and (wait == 0 or horizon < 0 or not is_booked(state)) then
    state.line = state.line - cost
    state.pace = state.pace - cost
    state.granted = state.granted + 1
    state.waited = state.waited + wait
    return GRANTED, wait, turn
  end
  if wait <= math.max(accept, horizon) and wait < math.huge then
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
  turn = math.max(now, math.min(turn, turn_of(terms, state, state.line, now)))
  if turn - now > accept then return EARLY, turn - now, turn end
  local start = math.max(turn, turn_of(terms, state, state.pace - math.min(cost, terms.capacity), now))
  if start - now > accept or start == math.huge then return take(terms, state, now, cost, -1, horizon) end
  if start > now then state.pace = pace_for(terms, state, start) end
  state.pace = state.pace - cost
  state.granted = state.granted + 1
  state.waited = state.waited + (start - now)
  return GRANTED, start - now, start
end

local function give_back(terms, state, now, cost, turn, booked)
  refill(terms, state, now)
  local end_ = turn_of(terms, state, state.line, now)
  if turn > now and math.abs(turn - end_) > ROUNDING then return REFUSED, 0, 0 end
  if turn <= now and (turn < state.grid or end_ > now) then return REFUSED, 0, 0 end
  state.line = math.min(terms.capacity, state.line + cost)
  if not booked then state.pace = math.min(terms.capacity, state.pace + cost) end
  return GRANTED, 0, 0
end
