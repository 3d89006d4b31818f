-- Decides on requests to one token bucket, in their order.
--
-- KEYS[1]  the bucket's state
-- ARGV[1]  its terms, six little-endian doubles: capacity, refill amount (tokens), refill step (us, 0 never),
--          initial tokens, anchor of the refill grid (us, negative for none), how long to keep it unused (us)
-- ARGV[2]  the requests, five doubles each: what (0 take, 1 come back for a booking, 2 give back a grant,
--          3 give back a booking, 4 settle, 5 look how far a turn is), cost (tokens; to settle, those beyond what was
--          taken), longest wait accepted (us; to look, when the clock had last been set as the turn was told), horizon of
--          bookings (us; below 0 for one that would not come back), turn (us; to take, the last one that is known to be
--          outstanding)
--
-- Returns three integers for each request: the verdict (0 refused, 1 granted, 2 booked, 3 early, 4 a cost above the
-- capacity; for a gift 1 taken back, 0 too late), the wait (us, rounded up; -1 for ever), the turn (us); and one more
-- where the bucket does not go by the server's clock: when its own was last set (us).

local terms = {}
terms.capacity, terms.amount, terms.step, terms.initial, terms.anchor, terms.keep = struct.unpack('<dddddd', ARGV[1])
local state = load_bucket(packed, terms, now)
local requests, at, reply = ARGV[2], 1, {}
while at <= #requests do
  local what, cost, accept, horizon, turn
  what, cost, accept, horizon, turn, at = struct.unpack('<ddddd', requests, at)
  local verdict, wait
  if state.live or what > 3 or (what == 0 and turn > now and is_young(state)) then
    verdict, wait, turn = live_rules().decide(terms, state, now, what, cost, accept, horizon, turn)
  elseif what == 0 then
    verdict, wait, turn = take(terms, state, now, cost, accept, horizon)
  elseif what == 1 then
    verdict, wait, turn = come_back(terms, state, now, cost, accept, horizon, turn)
  else
    verdict, wait, turn = give_back(terms, state, now, cost, turn, what == 3)
  end
  if wait == math.huge then wait, turn = -1, -1 end
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3] =
    verdict, math.ceil(math.min(wait, FOREVER)), math.ceil(math.min(turn, FOREVER))
end
if state.live then reply[#reply + 1] = state.live.changed end
save_bucket(KEYS[1], terms, state, now)
return reply
