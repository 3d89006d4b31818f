-- The server's time in microseconds: the one clock of all who share a limiter.
local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
