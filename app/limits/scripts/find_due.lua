#!lua flags=no-writes
-- Find reservations whose owner has been silent for too long, the longest silent first.
--
-- KEYS[1]  the tag's epoch    hg:{team_1}:epoch
-- KEYS[2]  when who is due    hg:{team_1}:due
--
-- ARGV[1]  now in ms, only in tests; '' is the server's clock
-- ARGV[2]  the epoch's token; '' where nothing is compared    7:4f2a...
-- ARGV[3]  how many at most                                   100
--
-- Example: EVALSHA sha 2 hg:{t}:epoch hg:{t}:due  '' 7:4f2a 100
--
-- Answers {DUE, request id, ...}; {LOST, token}.

assert(#KEYS == 2 and #ARGV == 3, 'two keys and three arguments')

local other = lost(ARGV[2])
if other then return other end
local now = clock(ARGV[1])
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', text(now), 'LIMIT', 0, ARGV[3])
return {DUE, unpack(due)}
