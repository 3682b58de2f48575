#!lua flags=allow-oom
-- Claim a reservation whose owner has been silent. Open money is charged at its bound, never released.
--
-- KEYS[1]    the tag's epoch              hg:{team_1}:epoch
-- KEYS[2]    when who is due              hg:{team_1}:due
-- KEYS[3]    the reservation              hg:{team_1}:r:01936a2e-...
-- KEYS[3+i]  its budgets, in their order  hg:{team_1}:b:budget_1:1798761600000
--
-- ARGV[1]  now in ms, only in tests; '' is the server's clock
-- ARGV[2]  the epoch's token                                 7:4f2a...
-- ARGV[3]  request id                                        01936a2e-...
-- ARGV[4]  for how many ms it is nobody else's               5000
--
-- Example: EVALSHA sha 4 hg:{t}:epoch hg:{t}:due hg:{t}:r:1 hg:{t}:b:b:0  '' 7:4f2a 1 5000
--
-- Answers {KNOWN, state, epoch, rank, nanousd, owner, opening, record, 'output_tokens lower_nanousd'};
--         {NOT_DUE}: its owner, or another reaper, was faster; {DONE, 0}: it is gone; {LOST, token}.

assert(#KEYS >= 3 and #ARGV == 4, 'three keys and its budgets, four arguments')
assert(ARGV[2] ~= '', 'only what belongs to an epoch is taken over')

local other = lost(ARGV[2])
if other then return other end
local now, epoch, request_id = clock(ARGV[1]), number_of(ARGV[2]), ARGV[3]
local known = find(KEYS[3], now)
if not known or known.state == 'gone' or known.state == 'void' then
  redis.call('ZREM', KEYS[2], request_id)
  return {DONE, 0}
end
local due = redis.call('ZSCORE', KEYS[2], request_id)
if due and tonumber(due) > now then return {NOT_DUE} end
for i = 4, #KEYS do look_at(KEYS[i]) end

redis.call('ZADD', KEYS[2], text(now + ARGV[4]), request_id)
if known.state == 'open' or known.epoch ~= epoch then
  local held, counted_epoch = held_of(known), known.epoch
  if known.state == 'open' then
    known.state, known.rank, known.nanousd, known.slots, known.held = 'done', '1', known.bound, '-', '-'
  end
  known.epoch = epoch
  redis.call('HSET', KEYS[3], 'h', head_of(known))
  -- One that was done already holds nothing, and what it counted in another epoch is not in this one.
  for i = 4, #KEYS do
    recount(KEYS[i], epoch, 'h', counted_epoch, held[i - 3] or '0', 'u', known.nanousd)
  end
end
return told(KEYS[3], known)
