#!lua flags=allow-oom
-- The owner puts back an open reservation, whatever the limits: the call does run.
--
-- KEYS[1]    the tag's epoch             hg:{team_1}:epoch
-- KEYS[2]    when who is due             hg:{team_1}:due
-- KEYS[3]    the reservation             hg:{team_1}:r:01936a2e-...
-- KEYS[3+i]  what is counted of limit i  hg:{team_1}:l:limit_1, or hg:{team_1}:b:budget_1:1798761600000
--
-- ARGV[1]  now in ms, only in tests; '' is the server's clock
-- ARGV[2]  the epoch's token                                       7:4f2a...
-- ARGV[3]  request id                                              01936a2e-...
-- ARGV[4]  for how many ms it lasts without a heartbeat            15000
-- ARGV[5]  its owner
-- ARGV[6]  its opening
-- ARGV[7]  the most that it can cost, in nano-dollars              1280000000
-- then for each limit i:
--   kind    w a window, l leases, m money                          m
--   amount  what is held of a budget; else 0                       1280000000
--
-- Example: EVALSHA sha 4 hg:{t}:epoch hg:{t}:due hg:{t}:r:1 hg:{t}:b:b:0
--          '' 7:4f2a 1 15000 gateway-1 {...} 1280000000  m 1280000000
--
-- Answers {DONE, 1}; {DONE, 0} if it was so already, or is over; {LOST, token}. An open one has this opening then.

local HEAD_ARGUMENTS, PER_LIMIT = 7, 2

assert(ARGV[2] ~= '', 'only what belongs to an epoch is put back')
assert(#KEYS >= 3 and #ARGV == HEAD_ARGUMENTS + PER_LIMIT * (#KEYS - 3), 'each limit has one key and two arguments')

local other = lost(ARGV[2])
if other then return other end
local now, epoch = clock(ARGV[1]), number_of(ARGV[2])
local request_id, lease_ms = ARGV[3], ARGV[4]
local known = find(KEYS[3], now)

local budgets, leases, held = {}, {}, {}
for i = 1, #KEYS - 3 do
  local kind, key = ARGV[HEAD_ARGUMENTS + PER_LIMIT * i - 1], KEYS[3 + i]
  if kind == 'l' then
    leases[#leases + 1] = key
  elseif kind == 'm' then
    budgets[#budgets + 1] = key
    held[#held + 1] = ARGV[HEAD_ARGUMENTS + PER_LIMIT * i]
    look_at(key)
  end
end

-- Its owner gave up waiting for a grant, and had it run all the same.
local was_void = known and known.state == 'void'
if was_void then known = nil end

if known and known.state ~= 'open' then
  if known.state ~= 'done' or known.epoch == epoch then return {DONE, 0} end
  known.epoch = epoch
  redis.call('HSET', KEYS[3], 'h', head_of(known))
  for i = 1, #budgets do recount(budgets[i], epoch, 'u', epoch, '0', 'u', known.nanousd) end
  return {DONE, 1}
end

local until_ms = text(now + lease_ms)
local held_text = #held > 0 and table.concat(held, ',') or '-'
redis.call('ZADD', KEYS[2], until_ms, request_id)
for i = 1, #leases do
  redis.call('ZADD', leases[i], until_ms, request_id)
  redis.call('PEXPIRE', leases[i], lease_ms)
end
if known and known.epoch == epoch then
  redis.call('HSET', KEYS[3], 'o', ARGV[6])
  return {DONE, 0}
end

if known then
  known.epoch, known.held = epoch, held_text
  redis.call('HSET', KEYS[3], 'h', head_of(known), 'o', ARGV[6])
else
  if was_void then redis.call('DEL', KEYS[3]) end
  local head = head_of({
    state = 'open', epoch = epoch, rank = '0', admitted = text(now), bound = ARGV[7], nanousd = '0', forget = '0',
    slots = '-', held = held_text,
  })
  redis.call('HSET', KEYS[3], 'h', head, 'w', ARGV[5], 'o', ARGV[6])
end
for i = 1, #budgets do recount(budgets[i], epoch, 'h', epoch, '0', 'h', held[i]) end
return {DONE, 1}
