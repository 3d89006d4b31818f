-- A bucket's state as it is kept: one packed string, and behind it what is changed while the bucket runs.

local STATE, STATE_SIZE = '<ddddddd', 56
local FOREVER = 9e15 -- 285 years: what is longer no reply, and no key's expiry, could hold

local function load_bucket(packed, terms, now)
  local state = {}
  if packed then
    state.line, state.pace, state.grid, state.granted, state.deferred, state.refused, state.waited =
      struct.unpack(STATE, packed)
    if #packed > STATE_SIZE then state.live = live_rules().unpack(packed, STATE_SIZE + 1) end
  else
    state.line, state.pace, state.grid = terms.initial, terms.initial, grid_start(terms, now)
    state.granted, state.deferred, state.refused, state.waited = 0, 0, 0, 0
  end
  return state
end

-- For how long a state that is used now must be kept.
local function kept(terms, state, now)
  if state.live then return live_rules().kept(terms, state, now) end
  if terms.step == 0 then return terms.keep end
  local full = turn_of(terms, state, math.min(state.line, state.pace) - terms.capacity, now)
  return math.max(terms.keep, full - now)
end

local function save_bucket(key, terms, state, now)
  local packed = struct.pack(STATE,
    state.line, state.pace, state.grid, state.granted, state.deferred, state.refused, state.waited)
  if state.live then packed = packed .. live_rules().pack(state.live) end
  redis.call('SET', key, packed, 'PX', math.ceil(math.min(kept(terms, state, now), FOREVER) / 1000) + 1)
end
