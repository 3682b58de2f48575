#!lua flags=allow-oom
-- The owner lives: prolong its running calls, and the done ones that it has not brought into SQL yet.
--
-- KEYS[1]          the tag's epoch                 hg:{team_1}:epoch
-- KEYS[2]          when who is due                 hg:{team_1}:due
-- KEYS[3 ... 2+n]  reservations of running calls   hg:{team_1}:r:01936a2e-...
-- KEYS[3+n ...]    limits that they hold leases of hg:{team_1}:l:limit_1
--
-- ARGV[1]  now in ms, only in tests; '' is the server's clock
-- ARGV[2]  the epoch's token; '' where nothing is compared                   7:4f2a...
-- ARGV[3]  for how many ms a running call lasts without a heartbeat          15000
-- ARGV[4]  for how many ms a done one does                                   60000
-- ARGV[5]  n, how many calls run                                             2
-- then for each that runs, in the order of its keys:
--   request id                                                               01936a2e-...
--   what has been seen of it: output tokens, and what it has cost at least   '120 4500000'
--   how many leases it has, and which of KEYS they are of                    1 5
-- then the ids of the done ones
--
-- Example: EVALSHA sha 5 hg:{t}:epoch hg:{t}:due hg:{t}:r:1 hg:{t}:r:2 hg:{t}:l:a
--          '' 7:4f2a 15000 60000 2  1 '120 4500000' 1 5  2 '0 0' 0  3
--
-- Answers {BEATEN, request id, ...} with the running ones that are not counted here; {LOST, token}.
--
-- A lease that is gone (it expired while its owner stood still, or the data was lost) is taken again,
-- also above the limit: the call does run.

local running = assert(tonumber(ARGV[5] or nil), 'the fifth argument says how many calls run')

assert(#KEYS >= 2 + running and #ARGV >= 5 + 3 * running, 'a running call has a key and three arguments or more')

local token, lease_ms = ARGV[2], ARGV[3]
local epoch = number_of(token)
local other = lost(token)
if other then return other end
local now = clock(ARGV[1])
local until_ms = text(now + lease_ms)

local answer, at = {BEATEN}, 6
for i = 1, running do
  local request_id, key = ARGV[at], KEYS[2 + i]
  local known = find(key, now)
  if not known or known.state == 'void' or (known.state == 'open' and known.epoch ~= epoch) then
    if token ~= '' then answer[#answer + 1] = request_id end
  elseif known.state == 'open' then
    if token ~= '' then redis.call('ZADD', KEYS[2], until_ms, request_id) end
    redis.call('HSET', key, 'b', ARGV[at + 1])
  end
  local leases = tonumber(ARGV[at + 2])
  for j = at + 3, at + 2 + leases do
    redis.call('ZADD', KEYS[tonumber(ARGV[j])], until_ms, request_id)
    redis.call('PEXPIRE', KEYS[tonumber(ARGV[j])], lease_ms)
  end
  at = at + 3 + leases
end
local done_until_ms = text(now + ARGV[4])
for i = at, #ARGV do redis.call('ZADD', KEYS[2], 'XX', done_until_ms, ARGV[i]) end
return answer
