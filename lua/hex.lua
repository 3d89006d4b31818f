-- Bytes as text that any client can read, whatever encoding it was told.
local function hex(bytes)
  return (string.gsub(bytes or '', '.', function(byte) return string.format('%02x', string.byte(byte)) end))
end
