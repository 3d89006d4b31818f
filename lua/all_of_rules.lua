-- The rules of several limits at once, as in steindamm/rules/all_of.py, which explains them; times in microseconds.
-- A part is one of the limits: kind ('b' a bucket, 's' a semaphore), terms, state, key (of a bucket), touched; of a
-- bucket at this moment: view (the terms in force), time (on its clock), clock (nil where that is the server's).
-- ask: cost, turn, asker. request: accept, horizon, stay, slack, what. look: verdict, wait, turn.

local TOO_MUCH = 3
local LOOK, GIVE_BACK, GIVE_BOOKINGS_BACK = 1, 2, 3

local function real(part, turn)
  local wait = turn - part.time
  return part.clock and part.clock.real(wait) or wait
end

local function booked_turn(part, ask)
  return math.max(part.time, math.min(ask.turn, turn_of(part.view, part.state, part.state.line, part.time)))
end

local function look_at_bucket(part, now, ask, request)
  local state = part.state
  part.view, part.clock, part.time = part.terms, nil, now
  if state.live then
    part.view, part.clock = live_rules().at(part.terms, state, now)
    part.time = part.clock.time
  end
  local view = part.view
  refill(view, state, part.time)
  if ask.turn ~= 0 then
    local turn = booked_turn(part, ask)
    if real(part, turn) > request.accept then
      return { verdict = WAITING, wait = real(part, turn), turn = turn }
    end
    local start = math.max(turn, turn_of(view, state, state.pace - math.min(ask.cost, view.capacity), part.time))
    if real(part, start) <= request.accept and start < math.huge then
      return { verdict = GRANTED, wait = real(part, start), turn = start }
    end
  end
  local turn = turn_of(view, state, math.min(state.line, state.pace) - ask.cost, part.time)
  local wait, is_new = real(part, turn), ask.turn == 0
  if ask.cost > view.capacity and is_new then return { verdict = TOO_MUCH, wait = math.huge, turn = 0 } end
  if wait <= request.accept and wait < math.huge and is_new and (wait == 0 or not is_booked(state)) then
    return { verdict = GRANTED, wait = wait, turn = turn }
  end
  local is_too_far = wait > math.max(request.accept, request.horizon) or wait == math.huge
  return { verdict = is_too_far and REFUSED or WAITING, wait = wait, turn = turn }
end

local function look_at_semaphore(part, now, ask, request)
  local s = part.state
  s.capacity = slots(part.terms, s)
  tend(s, part.terms, now)
  if has_room(s, now) or redis.call('ZSCORE', s.leases_key, ask.asker) then
    return { verdict = GRANTED, wait = 0 }
  end
  drop_vanished(s, now)
  local number = ask.turn
  if number <= 0 or number > math.max(s.arrivals, now) then number = math.huge end
  local is_in_vain = request.stay == STAY_NO or opens_in(s, now) > request.horizon
  return { verdict = is_in_vain and REFUSED or WAITING, wait = expected(s, now, number) }
end

local function take_tokens(part, now, ask, look, wait)
  local state = part.state
  if wait > 0 then
    local start = part.time + (part.clock and math.max(0, part.clock.own(wait)) or wait)
    state.pace = pace_for(part.view, state, start)
  end
  state.pace = state.pace - ask.cost
  if ask.turn == 0 then state.line = state.line - ask.cost end
  state.granted = state.granted + 1
  state.waited = state.waited + look.wait
  if part.clock then live_rules().end_live(state, part.clock, now) end
  return look.turn
end

local function take_from(part, now, ask, look, wait)
  part.touched = true
  if part.kind == 'b' then return take_tokens(part, now, ask, look, wait) end
  local _, fence = step_in(part.state, part.terms, now, ask.asker, ask.turn, STAY_NO, 0)
  return fence
end

local function refuses(look) return look.verdict == REFUSED or look.verdict == TOO_MUCH end

-- Of each `stand`: what becomes of it, the wait, the turn or arrival number.
local function stand_at_bucket(part, ask, look, request)
  local state = part.state
  if ask.turn ~= 0 and real(part, booked_turn(part, ask)) > request.accept then
    return WAITING, look.wait, look.turn
  end
  part.touched = true
  if refuses(look) then
    state.refused = state.refused + 1
    return look.verdict, look.wait, 0
  end
  state.line = state.line - ask.cost
  state.deferred = state.deferred + 1
  state.waited = state.waited + look.wait
  return WAITING, look.wait, look.turn
end

local function stand_at(part, now, ask, look, request)
  if part.kind == 'b' then return stand_at_bucket(part, ask, look, request) end
  part.touched = true
  local stay = look.verdict == REFUSED and STAY_NO or request.stay
  local _, number, wait = step_in(part.state, part.terms, now, ask.asker, ask.turn, stay, request.slack)
  return look.verdict, wait, number
end

local function keeps(parts, index, which, asks, request)
  local one, other = parts[index], parts[which]
  if request.stay ~= STAY_LISTENING or asks[which].turn == 0 or one.kind == 'b' or other.kind == 'b' then
    return false
  end
  local less, more = one.state.capacity, other.state.capacity
  return less < more or (less == more and index < which)
end

-- What is left to the asker of what one of the limits gave it before: a fencing number, or 0.
local function left_of(part, now, ask, keep)
  if part.kind == 'b' then return 0 end
  if keep then
    local _, fence = renew(part.state, part.terms, now, ask.asker, 0)
    return fence
  end
  leave(part.state, part.terms, now, ask.asker, -1)
  return 0
end

local function changed(part, now)
  if part.kind == 's' then return ceil(opens_in(part.state, now)) end
  return part.state.live and part.state.live.changed or 0
end

-- Whether one look has more to say than the other: it refuses, else it is short, else its wait is longer.
local function decides(one, other)
  if refuses(one) ~= refuses(other) then return refuses(one) end
  if (one.verdict == GRANTED) ~= (other.verdict == GRANTED) then return other.verdict == GRANTED end
  return one.wait > other.wait
end

local function give_all_back(parts, now, asks, booked)
  for i, part in ipairs(parts) do
    local ask = asks[i]
    if part.kind == 's' then
      leave(part.state, part.terms, now, ask.asker, ask.turn)
    elseif ask.turn ~= 0 then
      part.touched = true
      if part.state.live then
        live_rules().decide(part.terms, part.state, now, booked and 3 or 2, ask.cost, 0, 0, ask.turn)
      else
        give_back(part.terms, part.state, now, ask.cost, ask.turn, booked)
      end
    end
  end
end

-- The verdict, the limit that decided, the wait, and what each gave.
local function decide_all(parts, now, asks, request)
  local looks, which, given = {}, 1, {}
  if request.what >= GIVE_BACK then
    give_all_back(parts, now, asks, request.what == GIVE_BOOKINGS_BACK)
    for i = 1, #parts do given[i] = 0 end
    return GRANTED, 1, 0, given
  end
  for i, part in ipairs(parts) do
    looks[i] = (part.kind == 'b' and look_at_bucket or look_at_semaphore)(part, now, asks[i], request)
    given[i] = 0
    if decides(looks[i], looks[which]) then which = i end
  end
  local look = looks[which]
  local verdict, wait = look.verdict, look.wait
  if request.what == LOOK then return verdict, which, wait, given end
  if verdict == GRANTED then
    for i, part in ipairs(parts) do given[i] = take_from(part, now, asks[i], looks[i], wait) end
    return verdict, which, wait, given
  end
  for i, part in ipairs(parts) do given[i] = left_of(part, now, asks[i], keeps(parts, i, which, asks, request)) end
  verdict, wait, given[which] = stand_at(parts[which], now, asks[which], look, request)
  return verdict, which, wait, given
end
