-- Decides on requests to one semaphore, in their order, and hands freed slots to those who listen.
--
-- KEYS     1 the state (one packed string), 2 the leases (holder by end, us), 3 the waiters that listen and
--          4 those that are away (by arrival number), 5 until when each waiter counts as present (us), 6 since when
--          long leases are held (us by holder)
-- ARGV[1]  the terms, four little-endian doubles: capacity (slots), lease (us), presence (us), whether PUBLISH
--          counts every listener (0 or 1)
-- ARGV[2]  the requests, four doubles each: what (0 enter, 1 leave, 2 give up waiting, 3 renew), number (its
--          arrival number, or 0; for leave: how long the slot was held, us; for renew, of a holder: its fencing
--          number below 0), stay (0 no, 1 listening, 2 away), slack (us that one away may be late)
-- ARGV[3…] who asks, one for each request: "<process>:<count>"
--
-- Publishes "<who> <fencing number>" on the channel steindamm:<process> for each slot that is handed over.
-- Returns three integers for each request: the standing (0 out, 1 holding, 2 waiting), the number (fencing
-- number of a holder, arrival number of a waiter), the wait (us) until a slot is to be expected; and one more where
-- something is changed while the semaphore runs: for how long it is closed (us).

local terms = {}
terms.capacity, terms.lease, terms.presence, terms.counted = struct.unpack('<dddd', ARGV[1])
local s = load_semaphore(1, packed, terms)
local requests, at, reply = ARGV[2], 1, {}
for i = 3, #ARGV do
  local what, number, stay, slack
  what, number, stay, slack, at = struct.unpack('<dddd', requests, at)
  local standing, wait
  if what == 0 then
    standing, number, wait = enter(s, terms, now, ARGV[i], number, stay, slack)
  elseif what == 1 then
    standing, number, wait = leave(s, terms, now, ARGV[i], number)
  elseif what == 2 then
    standing, number, wait = give_up(s, terms, now, ARGV[i])
  else
    standing, number, wait = renew(s, terms, now, ARGV[i], number)
  end
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3] = standing, number, wait
end
if s.live then reply[#reply + 1] = ceil(opens_in(s, now)) end
save_semaphore(s, now, terms)
return reply
