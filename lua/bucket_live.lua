-- What is changed of a bucket while it runs, the bucket's own clock, and what its backend has lost, as in
-- steindamm/rules/live.py, bucket.py and deciding.py, which explain all three; times in microseconds. Its functions
-- are made where they are needed: most requests do without.

local made

local function live_rules()
  if made then return made end
  local rules = {}
  local SETTLE, LOOK, TAKE, COME_BACK, GIVE_BOOKING_BACK, TOO_MUCH = 4, 5, 0, 1, 3, 4
  local LIVE, UNSET, YEAR, REMEMBERED = '<dddddddddddddddddd', -1, 366 * 86400000000, 60e6

  function rules.new(now)
    return {
      changed = now, time = now, since = now, span = 0, share = 1, recovery = 0, cut_at = -math.huge, speed = 1,
      capacity = UNSET, amount = UNSET, step = UNSET, anchor = UNSET, set_at = 0, line = 0, pace = 0, grid = 0,
      born = now, recalled = math.huge, note = '',
    }
  end

  function rules.unpack(packed, at)
    local live = {}
    live.changed, live.time, live.since, live.span, live.share, live.recovery, live.cut_at, live.speed,
      live.capacity, live.amount, live.step, live.anchor, live.set_at, live.line, live.pace, live.grid,
      live.born, live.recalled, at =
      struct.unpack(LIVE, packed, at)
    live.note = string.sub(packed, at)
    return live
  end

  function rules.pack(live)
    return struct.pack(LIVE, live.changed, live.time, live.since, live.span, live.share, live.recovery, live.cut_at,
      live.speed, live.capacity, live.amount, live.step, live.anchor, live.set_at, live.line, live.pace, live.grid,
      live.born, live.recalled)
      .. live.note
  end

  function rules.clock(live, now)
    if now < live.since - live.span then
      if live.time == live.since then live.time = now + live.span end
      live.since = now + live.span
    end
    if now >= live.since then live.span = 0 end
    live.cut_at = math.min(live.cut_at, now)

    local since, share, recovery, speed = live.since, live.share, live.recovery, live.speed
    local slow = (1 - share) * recovery
    local function run(elapsed)
      if elapsed <= 0 then return 0 end
      if elapsed >= slow then return speed * (elapsed - slow * (1 - share) / 2) end
      return speed * (elapsed * (share + elapsed / (2 * recovery)))
    end
    local function time_to_run(bucket_time)
      local even = bucket_time / speed
      if even >= slow * (1 + share) / 2 then return even + slow * (1 - share) / 2 end
      return 2 * even / (share + math.sqrt(share * share + 2 * even / recovery))
    end

    local ran = run(now - since)
    local clock = {
      time = live.time + ran,
      opens_in = math.max(0, since - now),
      share = 1,
      is_even = speed == 1 and now >= since + slow,
      slow_for = math.max(0, since + slow - now),
    }
    if share ~= 1 and now < since + slow then clock.share = share + math.max(0, now - since) / recovery end
    function clock.real(wait)
      if wait == math.huge then return wait end
      if wait <= 0 then return clock.opens_in end
      return math.max(0, since - now + time_to_run(ran + wait))
    end
    function clock.own(wait)
      if wait == math.huge then return wait end
      local elapsed = now + wait - since
      if wait < 0 or elapsed < 0 then return UNSET end
      return run(elapsed) - ran
    end
    return clock
  end

  -- The terms in force, and the clock, of a bucket that has anything changed.
  function rules.at(terms, state, now)
    local live = state.live
    if live.capacity >= 0 then
      terms = {
        capacity = live.capacity, amount = live.amount, step = live.step, anchor = live.anchor,
        initial = terms.initial, keep = terms.keep,
      }
    end
    return terms, rules.clock(live, now)
  end

  local function recalls_for(live, now)
    return live.recalled == math.huge and 0 or math.max(0, live.born + REMEMBERED - now)
  end

  function rules.end_live(state, clock, now)
    if state.live.capacity >= 0 or not clock.is_even or recalls_for(state.live, now) > 0 then return end
    if state.live.recalled == math.huge and state.waited > 0 and is_young(state) then return end
    if state.line >= -DUST and state.pace >= -DUST then
      state.grid = state.grid + (now - clock.time)
      state.live = nil
    end
  end

  function rules.kept(terms, state, now)
    local clock
    terms, clock = rules.at(terms, state, now)
    local full = clock.time
    if terms.step > 0 then full = turn_of(terms, state, math.min(state.line, state.pace) - terms.capacity, full) end
    local kept = math.max(terms.keep, clock.real(full - clock.time), clock.slow_for, recalls_for(state.live, now))
    return state.live.capacity >= 0 and math.max(kept, YEAR) or kept
  end

  local function settle(terms, state, now, cost)
    refill(terms, state, now)
    state.line = math.min(terms.capacity, state.line - cost)
    state.pace = math.min(terms.capacity, state.pace - cost)
    return GRANTED, 0, 0
  end

  local function look(terms, state, now, turn)
    refill(terms, state, now)
    turn = math.max(now, math.min(turn, turn_of(terms, state, math.min(state.line, state.pace), now)))
    return EARLY, turn - now, turn
  end

  local function recall(terms, state, now, told)
    local live, own, time = state.live, terms, now
    if live then
      local clock
      own, clock = rules.at(terms, state, now)
      time = clock.time
    end
    told = math.min(told, time + REMEMBERED)
    local is_recalled = live and live.recalled < math.huge
    if told <= time or own.step == 0 or is_recalled or not is_young(state) then return end
    refill(own, state, time)
    if turn_of(own, state, state.line, time) + ROUNDING < told then
      state.line = -math.floor((told - state.grid) / own.step + DUST) * own.amount
      state.pace = math.min(state.pace, state.line)
      state.live = live or rules.new(now)
      state.live.recalled = told
    end
  end

  local function is_lost(terms, state, now, cost, known, turn)
    local live = state.live
    if live then terms = rules.at(terms, state, now) end
    if terms.step == 0 or cost > terms.capacity then return false end
    if not live then return 0 < known and known < math.huge and is_young(state) end
    return known < live.born and (known > 0 or turn > live.recalled)
  end

  local function decide(terms, state, now, what, cost, accept, horizon, turn)
    if what == TAKE then return take(terms, state, now, cost, accept, horizon) end
    if what == COME_BACK then return come_back(terms, state, now, cost, accept, horizon, turn) end
    if what == LOOK then return look(terms, state, now, turn) end
    if what == SETTLE then return settle(terms, state, now, cost) end
    return give_back(terms, state, now, cost, turn, what == GIVE_BOOKING_BACK)
  end

  function rules.decide(terms, state, now, what, cost, accept, horizon, turn)
    if what == TAKE and turn > 0 then
      recall(terms, state, now, turn)
    elseif what == LOOK and is_lost(terms, state, now, cost, accept, turn) then
      what, accept, horizon, turn = TAKE, math.huge, -1, 0
    end
    if not state.live then return decide(terms, state, now, what, cost, accept, horizon, turn) end
    local clock
    terms, clock = rules.at(terms, state, now)
    if what == TAKE and cost > terms.capacity then
      state.refused = state.refused + 1
      return TOO_MUCH, math.huge, math.huge
    end
    local verdict, wait
    verdict, wait, turn = decide(terms, state, clock.time, what, cost, clock.own(accept), clock.own(horizon), turn)
    local real = clock.real(wait)
    if (verdict == GRANTED or verdict == BOOKED) and what <= COME_BACK then
      state.waited = state.waited + (real - wait)
    end
    rules.end_live(state, clock, now)
    return verdict, real, turn
  end

  made = rules
  return rules
end
