#!lua flags=allow-oom
-- End a reservation: what it counted becomes what it used, in the slots of its admission; its leases are freed.
--
-- KEYS[1]    the tag's epoch             hg:{team_1}:epoch
-- KEYS[2]    when who is due             hg:{team_1}:due
-- KEYS[3]    the reservation             hg:{team_1}:r:01936a2e-...
-- KEYS[3+i]  what is counted of limit i  hg:{team_1}:l:limit_1, or hg:{team_1}:b:budget_1:1798761600000
--
-- ARGV[1]   now in ms, only in tests; '' is the server's clock
-- ARGV[2]   the epoch's token; '' where nothing is compared             7:4f2a...
-- ARGV[3]   request id                                                  01936a2e-...
-- ARGV[4]   for how many ms it waits for its owner to bring it to SQL   60000
-- ARGV[5]   its owner
-- ARGV[6]   its opening; '' where the outcome has a record
-- ARGV[7]   the most that it could have cost, in nano-dollars           1280000000
-- ARGV[8]   the outcome's rank                                          2
-- ARGV[9]   what it costs                                               310000000
-- ARGV[10]  the outcome's record
-- then for each limit i, in the order in which they were reserved:
--   kind        w a window, l leases, m money                           w
--   difference  what a window counts less what was reserved; else 0     -350
--
-- Example: EVALSHA sha 5 hg:{t}:epoch hg:{t}:due hg:{t}:r:1 hg:{t}:l:a hg:{t}:b:b:0
--          '' 7:4f2a 1 60000 gateway-1 {...} 1280000000 2 310000000 {...}  w -350  m 0
--
-- Answers {DONE, 1}; {DONE, 0} if it was so already; {LOST, token}.
--
-- Without epochs the reservation goes, so that a second settlement finds nothing.

local HEAD_ARGUMENTS, PER_LIMIT = 10, 2

assert(#KEYS >= 3 and #ARGV == HEAD_ARGUMENTS + PER_LIMIT * (#KEYS - 3), 'each limit has one key and two arguments')

local token, request_id = ARGV[2], ARGV[3]
local epoch, rank, nanousd = number_of(token), ARGV[8], ARGV[9]

local other = lost(token)
if other then return other end
local now = clock(ARGV[1])
local known = find(KEYS[3], now)
local budgets = {}
for i = 1, #KEYS - 3 do
  local kind, key = ARGV[HEAD_ARGUMENTS + PER_LIMIT * i - 1], KEYS[3 + i]
  if kind == 'l' then
    redis.call('ZREM', key, request_id)
  elseif kind == 'm' then
    budgets[#budgets + 1] = key
    look_at(key)
  end
end

if token == '' then
  if not known or known.state ~= 'open' then return {DONE, 0} end
  correct(corrections(known, HEAD_ARGUMENTS + 1))
  redis.call('DEL', KEYS[3])
  return {DONE, 1}
end

local is_remembered = known and (known.state == 'gone' or known.state == 'void')

-- Which field holds what it counted, and how much that is in each budget.
local from, less, counted, changes = 'u', {}, nanousd, {}
local was_kept = known and not is_remembered
if not known then
  known = {epoch = epoch, admitted = '0', bound = ARGV[7]}
elseif known.state == 'open' then
  from, less, changes = 'h', held_of(known), corrections(known, HEAD_ARGUMENTS + 1)
elseif tonumber(rank) <= tonumber(known.rank) then
  -- What an earlier epoch had counted is counted in this one, once.
  if known.state == 'done' and known.epoch ~= epoch then
    known.epoch = epoch
    redis.call('HSET', KEYS[3], 'h', head_of(known))
    for i = 1, #budgets do recount(budgets[i], epoch, 'u', epoch, '0', 'u', known.nanousd) end
  end
  return {DONE, 0}
elseif known.state == 'done' then
  for i = 1, #budgets do less[i] = known.nanousd end
else
  -- SQL has what a gone one counted; a void one counted nothing, and has no rank.
  counted = text(math.max(0, nanousd - known.nanousd))
end

redis.call('ZADD', KEYS[2], text(now + ARGV[4]), request_id)
if is_remembered then redis.call('DEL', KEYS[3]) end
local head = head_of({
  state = 'done', epoch = epoch, rank = rank, admitted = known.admitted, bound = known.bound, nanousd = counted,
  forget = '0', slots = '-', held = '-',
})
if was_kept then
  redis.call('HSET', KEYS[3], 'h', head, 'k', ARGV[10])
else
  redis.call('HSET', KEYS[3], 'h', head, 'w', ARGV[5], 'o', ARGV[6], 'k', ARGV[10])
end
correct(changes)
for i = 1, #budgets do recount(budgets[i], epoch, from, known.epoch, less[i] or '0', 'u', counted) end
return {DONE, 1}
