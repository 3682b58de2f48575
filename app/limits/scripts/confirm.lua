#!lua flags=allow-oom
-- SQL has these requests: what is counted of them is taken away where SQL knows as much, and what it has of
-- budgets is assigned where it is newer, all at once.
--
-- KEYS[1]          the tag's epoch     hg:{team_1}:epoch
-- KEYS[2]          when who is due     hg:{team_1}:due
-- KEYS[3 ... 2+n]  the reservations    hg:{team_1}:r:01936a2e-...
-- KEYS[3+n ...]    budgets             hg:{team_1}:b:budget_1:1798761600000
--
-- ARGV[1]  now in ms, only in tests; '' is the server's clock
-- ARGV[2]  the epoch's token, of before the transaction in SQL began         7:4f2a...
-- ARGV[3]  for how many ms a request that is gone is remembered              60000
-- ARGV[4]  for how many ms a budget at rest is remembered                    172800000
-- ARGV[5]  n, how many requests                                              1
-- then for each request, in the order of its keys:
--   its id, its rank in SQL, what it costs there                             01936a2e-... 2 310000000
--   how many budgets it has, and which of KEYS they are, in their order      1 4
-- then for each value: which of KEYS the budget is, what is spent, the version    4 4200000000 12
--
-- Example: EVALSHA sha 4 hg:{t}:epoch hg:{t}:due hg:{t}:r:1 hg:{t}:b:b:0
--          '' 7:4f2a 60000 172800000 1  1 2 310000000 1 4  4 4200000000 12
--
-- Answers {CONFIRMED, request id, ...} with those that hold more than SQL knows; {LOST, token}.

local requests = assert(tonumber(ARGV[5] or nil), 'the fifth argument says how many requests')

assert(#KEYS >= 2 + requests and #ARGV >= 5 + 4 * requests, 'a request has a key and four arguments or more')
assert(ARGV[2] ~= '', 'only what belongs to an epoch is confirmed')

local other = lost(ARGV[2])
if other then return other end
local now, epoch = clock(ARGV[1]), number_of(ARGV[2])
for i = 3 + requests, #KEYS do look_at(KEYS[i]) end

local answer, at = {CONFIRMED}, 6
for i = 1, requests do
  local request_id, rank, key = ARGV[at], ARGV[at + 1], KEYS[2 + i]
  local budgets = tonumber(ARGV[at + 3])
  local known = find(key, now)
  if not known or known.state == 'gone' or known.state == 'void' then
    redis.call('ZREM', KEYS[2], request_id)
  elseif known.state == 'done' and tonumber(rank) < tonumber(known.rank) then
    answer[#answer + 1] = request_id
  else
    local held = held_of(known)
    for j = 1, budgets do
      local budget = KEYS[tonumber(ARGV[at + 3 + j])]
      if known.state == 'done' then
        recount(budget, epoch, 'u', known.epoch, known.nanousd, 'u', '0')
      else
        recount(budget, epoch, 'h', known.epoch, held[j] or '0', 'h', '0')
      end
    end
    local tombstone = {
      state = 'gone', epoch = known.epoch, rank = rank, admitted = '0', bound = '0', nanousd = ARGV[at + 2],
    }
    bury(KEYS[2], key, request_id, tombstone, now, ARGV[3])
  end
  at = at + 4 + budgets
end
for i = at, #ARGV, 3 do assign(KEYS[tonumber(ARGV[i])], epoch, ARGV[i + 1], ARGV[i + 2]) end
for i = 3 + requests, #KEYS do rest(KEYS[i], ARGV[4]) end
return answer
