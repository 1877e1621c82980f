-- Joins what a host says about a client to what is known, as `State::joined` does, and tells the other hosts if that is new.
-- KEYS: the client's word, the stream. ARGV: the word, the client, the host's number, how long the stream may get, for how
-- many seconds a revocation is remembered.
local function greater(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then
      return x > y and a or b
    end
  end
  return #a >= #b and a or b
end
local function number(text, at)
  local a, b, c, d = string.byte(text, at, at + 3)
  return ((a * 256 + b) * 256 + c) * 256 + d
end
local tests = 5
local tail = 2 + 8 * tests
local old, new = redis.call('GET', KEYS[1]), ARGV[1]
if old and #old >= tail and string.byte(old, 1) == string.byte(new, 1) then
  local parts = { string.sub(new, 1, 1) }
  for at = 2, tail - 8, 8 do
    parts[#parts + 1] = greater(string.sub(old, at, at + 7), string.sub(new, at, at + 7))
  end
  parts[#parts + 1] = greater(string.sub(old, tail), string.sub(new, tail))
  new = table.concat(parts)
end
if new == old then
  return 0
end
local until_ = 0
local function keep(epoch)
  if epoch > 0 then
    until_ = math.max(until_, epoch + tonumber(ARGV[5]))
  end
end
for at = 2, tail - 8, 8 do
  keep(number(new, at))
  until_ = math.max(until_, number(new, at + 4))
end
keep(number(new, tail))
redis.call('SET', KEYS[1], new)
redis.call('EXPIREAT', KEYS[1], until_ + 3600)
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'c', ARGV[2], 's', new, 'h', ARGV[3])
return 1
