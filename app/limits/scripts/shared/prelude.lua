-- Goes before every script: the answers' first numbers, numbers as text, the clock, the epoch.
-- Functions are made anew for every call of a script: parts that a script does not need are not before it.

local GRANTED, REFUSED, COLD, OUT_OF_WINDOW, VOIDED, LOST, DONE = 0, 1, 2, 3, 4, 5, 6
local BEATEN, DUE, NOT_DUE, KNOWN, CONFIRMED, COUNTED = 7, 8, 9, 10, 11, 12

-- Numbers are doubles, exact up to 2^53. The sum turns -0 into 0, since HINCRBY refuses the text '-0'.
local function text(number)
  return string.format('%.0f', number + 0)
end

-- Milliseconds since 1970: as given in tests, else by this server, which alone decides.
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Amounts are counted in the epoch of this number; a tag without epochs has 0.
local function number_of(token)
  return string.match(token, '^%d+') or '0'
end

-- The answer where KEYS[1] holds another epoch's token, or none; an empty token is not compared.
local function lost(token)
  if token == '' then return nil end
  local found = redis.call('GET', KEYS[1])
  if found == token then return nil end
  return {LOST, found}
end
