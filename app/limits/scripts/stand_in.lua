#!lua
-- Hold an amount of a budget for a process that cannot say what it holds; 0 ends it, for this epoch.
--
-- KEYS[1]  the tag's epoch    hg:{team_1}:epoch
-- KEYS[2]  the budget         hg:{team_1}:b:budget_1:1798761600000
--
-- ARGV[1]  the epoch's token                                  7:4f2a...
-- ARGV[2]  for how many ms a budget at rest is remembered     172800000
-- ARGV[3]  the process                                        gateway-1
-- ARGV[4]  the amount                                         1500000000
--
-- Example: EVALSHA sha 2 hg:{t}:epoch hg:{t}:b:b:0  7:4f2a 172800000 gateway-1 1500000000
--
-- Answers {DONE, 1}; {DONE, 0} if it was so already; {LOST, token}.

assert(#KEYS == 2 and #ARGV == 4, 'two keys and four arguments')
assert(ARGV[1] ~= '', 'only what belongs to an epoch stands in')

local other = lost(ARGV[1])
if other then return other end
local epoch, budget, field, amount = number_of(ARGV[1]), KEYS[2], 's:' .. ARGV[3], ARGV[4]
look_at(budget)
local before = epoch_of[budget] == epoch and redis.call('HGET', budget, field)
-- Once ended it stays so: what comes late was sent before.
if before == '0' or before == amount then return {DONE, 0} end

if epoch_of[budget] == epoch then
  recount(budget, epoch, 'h', epoch, before or '0', 'h', amount)
else
  renew(budget, epoch, 'h', amount)
end
redis.call('HSET', budget, field, amount)
rest(budget, ARGV[2])
return {DONE, 1}
