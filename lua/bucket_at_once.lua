-- The short way, as take in steindamm/rules/bucket.py: one request, and the tokens are there. It returns; every
-- other case has changed nothing and goes on below, with the time and the state that were read here. Its keys,
-- arguments and reply are those of bucket.lua.

local now, packed = now_us(), redis.call('GET', KEYS[1])

do
  local STATE, SIZE, ONE_REQUEST, FOREVER, DUST = '<ddddddd', 56, 40, 9e15, 1e-9
  if packed and #packed == SIZE and #ARGV[2] == ONE_REQUEST then
    local ceil, unpack = math.ceil, struct.unpack
    local capacity, amount, step, _, anchor, keep = unpack('<dddddd', ARGV[1])
    local what, cost, _, _, told = unpack('<ddddd', ARGV[2])
    local line, pace, grid, granted, deferred, refused, waited = unpack(STATE, packed)
    local elapsed = now - grid

    if what == 0 and told <= now and line >= cost and pace >= cost and elapsed >= 0 and step > 0 and anchor < 0 then
      if elapsed >= step then
        local steps = math.floor(elapsed / step)
        line, pace, grid = line + steps * amount, pace + steps * amount, grid + steps * step
      end
      if line >= capacity and pace >= capacity then grid = now end
      line = (line < capacity and line or capacity) - cost
      pace = (pace < capacity and pace or capacity) - cost
      local missing = capacity - (line < pace and line or pace)
      local full_in = grid + ceil((missing - DUST) / amount) * step - now
      redis.call('SET', KEYS[1], struct.pack(STATE, line, pace, grid, granted + 1, deferred, refused, waited),
        'PX', ceil(math.min(math.max(keep, full_in), FOREVER) / 1000) + 1)
      return {1, 0, now}
    end
  end
end
