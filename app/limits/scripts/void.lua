#!lua flags=allow-oom
-- As if the request had never come, whether it has been reserved or will be late.
--
-- KEYS[1]    the tag's epoch, not looked at  hg:{team_1}:epoch
-- KEYS[2]    when who is due                 hg:{team_1}:due
-- KEYS[3]    the reservation                 hg:{team_1}:r:01936a2e-...
-- KEYS[3+i]  what is counted of limit i      hg:{team_1}:l:limit_1, or hg:{team_1}:b:budget_1:1798761600000
--
-- ARGV[1]  now in ms, only in tests; '' is the server's clock
-- ARGV[2]  for how many ms a late reserve of this request is refused         60000
-- ARGV[3]  request id                                                        01936a2e-...
-- ARGV[4]  for how many ms a budget at rest is remembered                    172800000
-- then for each limit i, in the order in which they were reserved:
--   kind        w a window, l leases, m money                                w
--   difference  nothing less what was reserved of a window; else 0           -1200
--
-- Example: EVALSHA sha 4 hg:{t}:epoch hg:{t}:due hg:{t}:r:1 hg:{t}:l:a  '' 60000 1 172800000  w -1200
--
-- Answers {DONE, 1} if it was reserved, else {DONE, 0}.

local HEAD_ARGUMENTS, PER_LIMIT = 4, 2

assert(#KEYS >= 3 and #ARGV == HEAD_ARGUMENTS + PER_LIMIT * (#KEYS - 3), 'each limit has one key and two arguments')

local now = clock(ARGV[1])
local known = find(KEYS[3], now)
if known and known.state ~= 'open' then return {DONE, 0} end

local budgets = {}
for i = 1, #KEYS - 3 do
  local kind, key = ARGV[HEAD_ARGUMENTS + PER_LIMIT * i - 1], KEYS[3 + i]
  if kind == 'l' then
    redis.call('ZREM', key, ARGV[3])
  elseif kind == 'm' then
    budgets[#budgets + 1] = key
    look_at(key)
  end
end

local changes = known and corrections(known, HEAD_ARGUMENTS + 1)
local tombstone = {state = 'void', epoch = '0', rank = '0', admitted = '0', bound = '0', nanousd = '0'}
bury(KEYS[2], KEYS[3], ARGV[3], tombstone, now, ARGV[2])
if not known then return {DONE, 0} end
correct(changes)
for i, held in ipairs(held_of(known)) do
  if budgets[i] then
    recount(budgets[i], known.epoch, 'h', known.epoch, held, 'h', '0')
    rest(budgets[i], ARGV[4])
  end
end
return {DONE, 1}
