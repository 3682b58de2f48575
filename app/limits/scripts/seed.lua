#!lua
-- Assign what SQL has of budgets, where it is newer.
--
-- KEYS[1]    the tag's epoch    hg:{team_1}:epoch
-- KEYS[1+i]  a budget           hg:{team_1}:b:budget_1:1798761600000
--
-- ARGV[1]  the epoch's token, of before the values were read    7:4f2a...
-- ARGV[2]  for how many ms a budget at rest is remembered       172800000
-- then for each budget i: what is spent, and its version        4200000000 12
--
-- Example: EVALSHA sha 2 hg:{t}:epoch hg:{t}:b:b:0  7:4f2a 172800000  4200000000 12
--
-- Answers {DONE, 1}; {DONE, 0} if nothing of it was news; {LOST, token}.

assert(#KEYS >= 1 and #ARGV == 2 + 2 * (#KEYS - 1), 'each budget has one key and two arguments')
assert(ARGV[1] ~= '', 'only what belongs to an epoch is seeded')

local other = lost(ARGV[1])
if other then return other end
local epoch, changed = number_of(ARGV[1]), 0
for i = 2, #KEYS do look_at(KEYS[i]) end
for i = 2, #KEYS do
  if assign(KEYS[i], epoch, ARGV[2 * i - 1], ARGV[2 * i]) == 1 then changed = 1 end
  rest(KEYS[i], ARGV[2])
end
return {DONE, changed}
