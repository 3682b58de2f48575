-- Prolong the leases of running requests: their owner lives.
--
-- KEYS[1]  the leases of one limit                               hg:{team_1}:key:key_1:concurrency
--
-- ARGV[1]  now in ms, only in tests; '' is the server's clock
-- ARGV[2]  for how many ms a lease lasts without a heartbeat     15000
-- ARGV[3]  and on: request ids                                   01936a2e-...
--
-- Example: EVALSHA sha 1 hg:{t}:key:k:concurrency '' 15000 r1 r2
--
-- A lease that is gone (it expired while its owner stood still, or the data was lost) is taken again,
-- also above the limit: the request does run.

assert(#KEYS == 1 and #ARGV > 2, 'extend: one key, then a clock, a length and request ids')

local function server_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local expiry = string.format('%.0f', (tonumber(ARGV[1]) or server_ms()) + ARGV[2])
local leases = {}
for i = 3, #ARGV do
  leases[#leases + 1] = expiry
  leases[#leases + 1] = ARGV[i]
end
redis.call('ZADD', KEYS[1], unpack(leases))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return #ARGV - 2
