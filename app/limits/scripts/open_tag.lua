#!lua
-- Begin an epoch under a tag that has none, or an older one.
--
-- KEYS[1]  the tag's epoch      hg:{team_1}:epoch
--
-- ARGV[1]  the epoch's token    7:4f2a...
--
-- Example: EVALSHA sha 1 hg:{t}:epoch  7:4f2a
--
-- Answers {DONE, 1}; {DONE, 0} if it had begun; {LOST, token} if the tag is of this epoch on another server, or
-- of a later one.

assert(#KEYS == 1 and #ARGV == 1 and ARGV[1] ~= '', 'one key and one argument')

local found = redis.call('GET', KEYS[1])
if found == ARGV[1] then return {DONE, 0} end
if found and tonumber(number_of(found)) >= tonumber(number_of(ARGV[1])) then return {LOST, found} end
redis.call('SET', KEYS[1], ARGV[1])
return {DONE, 1}
