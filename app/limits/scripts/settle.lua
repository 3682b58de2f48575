-- End a reservation: correct what it counted, in the slots of its admission, and free its leases.
--
-- KEYS[1]    the reservation          hg:{team_1}:reservation:01936a2e-...
-- KEYS[1+i]  what is held of limit i  hg:{team_1}:key:key_1:tokens_per_minute
--
-- ARGV[1]  request id                                                          01936a2e-...
-- ARGV[2]  0, or for how many ms a late reserve of this request is refused     60000
-- then for each limit i, in the order in which they were reserved:
--   kind        requests | tokens | concurrency                                tokens
--   difference  what was used less what was reserved                           -350
--
-- Example: EVALSHA sha 3 hg:{t}:reservation:r hg:{t}:key:k:tokens_per_minute hg:{t}:key:k:concurrency
--          r 0  tokens -350  concurrency 0
--
-- Answers 1 if there was a reservation, 0 if it was settled before or has been forgotten.
--
-- The reservation goes, so that a second settlement finds nothing. A slot that has left the window is
-- either gone or about to be, so no clock is needed. See reserve.lua for what the keys hold.

local HEAD, PER_LIMIT = 2, 2

assert(#ARGV == HEAD + PER_LIMIT * (#KEYS - 1), 'settle: each limit has one key and two arguments')

local function correct(key, slot, difference)
  local counted = tonumber(redis.call('HGET', key, slot) or nil)
  if counted == nil then return end
  difference = math.max(difference, -counted)
  if difference == 0 then return end  -- also -0, of which HINCRBY would refuse the text
  local text = string.format('%.0f', difference)
  redis.call('HINCRBY', key, slot, text)
  redis.call('HINCRBY', key, 'total', text)
end

local reservation = redis.call('GET', KEYS[1])
local slots = {}
if reservation then
  for word in string.gmatch(reservation, '%d+') do slots[#slots + 1] = word end
end

if ARGV[2] ~= '0' then
  redis.call('SET', KEYS[1], 'void', 'PX', ARGV[2])
elseif reservation and reservation ~= 'void' then
  redis.call('DEL', KEYS[1])
end

for i = 1, #KEYS - 1 do
  local at = HEAD + PER_LIMIT * (i - 1)
  if ARGV[at + 1] == 'concurrency' then
    redis.call('ZREM', KEYS[1 + i], ARGV[1])
  elseif slots[1 + i] then  -- the first number is the time of admission
    correct(KEYS[1 + i], slots[1 + i], tonumber(ARGV[at + 2]))
  end
end

return slots[1] and 1 or 0
