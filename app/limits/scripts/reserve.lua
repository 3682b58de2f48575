#!lua
-- Take a claim from every one of its limits, or from none.
--
-- KEYS[1]    the tag's epoch             hg:{team_1}:epoch
-- KEYS[2]    when who is due             hg:{team_1}:due
-- KEYS[3]    the reservation             hg:{team_1}:r:01936a2e-...
-- KEYS[3+i]  what is counted of limit i  hg:{team_1}:l:limit_1, or hg:{team_1}:b:budget_1:1798761600000
--
-- ARGV[1]  now in ms, only in tests; '' is the server's clock
-- ARGV[2]  the epoch's token; '' where nothing is compared         7:4f2a...
-- ARGV[3]  request id                                              01936a2e-...
-- ARGV[4]  for how many ms it lasts without a heartbeat            15000
-- ARGV[5]  without epochs: for how many ms it is remembered        61000
-- ARGV[6]  its owner
-- ARGV[7]  its opening
-- ARGV[8]  the most that it can cost, in nano-dollars              1280000000
-- then for each limit i:
--   kind     w a window, l leases, m money                         w
--   mode     e it is enforced, o it is only observed               e
--   amount                                                         1200
--   maximum                                                        100000
--   slot_ms of a window; the first ms of a budget's window         1000
--   the ms after the last of a budget's window                     1801440000000
--
-- Example: EVALSHA sha 5 hg:{t}:epoch hg:{t}:due hg:{t}:r:1 hg:{t}:l:a hg:{t}:b:b:0
--          '' 7:4f2a 1 15000 0 gateway-1 {...} 1280000000
--          w e 1 600 1000 ''  m e 1280000000 5000000000 0 9007199254740992
--
-- Answers {GRANTED, admitted_at_ms, remaining, reset_ms, ..., i, ...}: two numbers per limit, then the limits
--           that only observe and would have refused;
--         {REFUSED, i, retry_after_ms, held, remaining, reset_ms, ...}: limit i waits longest (-1: for ever),
--           held is 1 where only holds of running calls stand in its way;
--         {COLD, i, ...}: these budgets are not known here; {OUT_OF_WINDOW, now_ms}; {VOIDED}; {LOST, token}.
--
-- A window is a hash: total, first and last (its oldest and newest slot), and one field per slot. Leases are a
-- sorted set of request ids by expiry. What has left a window or has expired is removed first, whatever the
-- answer; everything else is written once nothing can be refused any more.
--
-- This is the script that every request waits for: it has no function that is not called for most of them.

local SLOTS_PER_WINDOW = 60
local CONCURRENCY_RETRY_MS = 1000
local HELD_RETRY_MS = 2000
local HEAD_ARGUMENTS, PER_LIMIT = 8, 6

local limits = #KEYS - 3
assert(limits >= 0 and #ARGV == HEAD_ARGUMENTS + PER_LIMIT * limits, 'each limit has one key and six arguments')

local token, request_id, lease_ms = ARGV[2], ARGV[3], ARGV[4]
local epoch = number_of(token)

local other = lost(token)
if other then return other end
local now = clock(ARGV[1])
local known = find(KEYS[3], now)
if known and (known.state == 'gone' or known.state == 'void') then return {VOIDED} end
-- Granted in an epoch that is over, and not sent yet: it has to fit into this one.
local is_anew = known and known.state == 'open' and known.epoch ~= epoch
if is_anew then known = nil end

-- Of each limit: what is counted; of a window its slots; of a budget what does not come free, and whether
-- nothing is held or unconfirmed.
local held, slot_of, first_of, last_of, spent_of, is_at_rest = {}, {}, {}, {}, {}, {}

local cold, is_out = {COLD}, false
for i = 1, limits do
  local at = HEAD_ARGUMENTS + PER_LIMIT * (i - 1)
  if ARGV[at + 1] == 'm' then
    local counted = redis.call('HMGET', KEYS[3 + i], 'e', 'v', 'c', 'u', 'h')
    local unconfirmed, of_open = 0, 0
    held[i], spent_of[i] = 0, 0
    if counted[1] == epoch then
      unconfirmed, of_open = tonumber(counted[4] or 0), tonumber(counted[5] or 0)
      spent_of[i] = tonumber(counted[3] or 0) + unconfirmed
      held[i] = spent_of[i] + of_open
    end
    is_at_rest[i] = unconfirmed == 0 and of_open == 0
    if not known then
      is_out = is_out or now < tonumber(ARGV[at + 5]) or now >= tonumber(ARGV[at + 6])
      if counted[1] ~= epoch or not counted[2] then cold[#cold + 1] = i end
    end
  end
end
if is_out then return {OUT_OF_WINDOW, now} end
if #cold > 1 then return cold end

local refused, longest, only_holds, observed = 0, 0, 0, nil
for i = 1, limits do
  local at, key = HEAD_ARGUMENTS + PER_LIMIT * (i - 1), KEYS[3 + i]
  local kind = ARGV[at + 1]
  -- A claim that is held already is granted again and not counted twice.
  local amount, maximum = known and 0 or tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local wait, waits_for_holds = 0, 0

  if kind == 'w' then
    local slot_ms = tonumber(ARGV[at + 5])
    local counted = redis.call('HMGET', key, 'total', 'first', 'last')
    local slot, total, first, last = math.floor(now / slot_ms), 0, nil, nil
    if counted[3] then
      total, first, last = tonumber(counted[1]), tonumber(counted[2]), tonumber(counted[3])
      -- A clock that was set back a little stands still here until it has caught up. Set back by more
      -- than a window, it would lock the limit for as long: then what was counted is forgotten.
      local is_set_back = last > slot + SLOTS_PER_WINDOW
      if last > slot and not is_set_back then slot = last end
      local oldest = slot - SLOTS_PER_WINDOW
      if is_set_back or last < oldest then
        redis.call('DEL', key)
        total, first, last = 0, nil, nil
      elseif first < oldest then
        local left = {}
        for gone = first, oldest - 1 do left[#left + 1] = text(gone) end
        for _, part in ipairs(redis.call('HMGET', key, unpack(left))) do total = total - (part or 0) end
        redis.call('HDEL', key, unpack(left))
        first = oldest
        redis.call('HSET', key, 'total', text(total), 'first', text(first))
      end
    end
    held[i], slot_of[i], first_of[i], last_of[i] = total, slot, first, last
    local excess = total + amount - maximum
    if excess > 0 and amount > 0 then
      wait = math.huge
      if amount <= maximum then
        -- One answer with every slot is cheaper than a look at each.
        local fields, amounts = redis.call('HGETALL', key), {}
        for j = 1, #fields, 2 do amounts[fields[j]] = tonumber(fields[j + 1]) end
        for leaving = first, last do
          excess = excess - (amounts[text(leaving)] or 0)
          if excess <= 0 then
            wait = (leaving + SLOTS_PER_WINDOW + 1) * slot_ms - now
            break
          end
        end
      end
    end

  elseif kind == 'l' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', text(now))
    held[i] = redis.call('ZCARD', key)
    if amount > maximum then
      wait = math.huge
    elseif amount > 0 and held[i] + amount > maximum then
      wait = CONCURRENCY_RETRY_MS
    end

  else
    assert(kind == 'm', 'a kind is one of w, l, m')
    -- What costs nothing always fits; holds of running calls are worth waiting for, spent money is not.
    if amount > 0 and held[i] + amount > maximum then
      wait, waits_for_holds = HELD_RETRY_MS, 1
      if spent_of[i] + amount > maximum then wait, waits_for_holds = math.huge, 0 end
    end
  end

  if wait > 0 and ARGV[at + 2] == 'o' then
    observed = observed or {}
    observed[#observed + 1] = i
  elseif wait > longest then
    refused, longest, only_holds = i, wait, waits_for_holds
  end
end

local answer
if refused > 0 then
  answer = {REFUSED, refused, longest == math.huge and -1 or longest, only_holds}
elseif known then
  answer = {GRANTED, tonumber(known.admitted)}
else
  answer = {GRANTED, now}
  local now_text, until_text, forget = text(now), text(now + lease_ms), '0'
  local slots, holds = '-', '-'
  for i = 1, limits do
    local at = HEAD_ARGUMENTS + PER_LIMIT * (i - 1)
    slots = (i > 1 and slots .. ',' or '') .. (slot_of[i] and text(slot_of[i]) or '0')
    if ARGV[at + 1] == 'm' then holds = (holds ~= '-' and holds .. ',' or '') .. ARGV[at + 3] end
  end
  if token ~= '' then
    redis.call('ZADD', KEYS[2], until_text, request_id)
  else
    forget = text(now + ARGV[5])
  end
  if is_anew then redis.call('DEL', KEYS[3]) end
  -- As head_of would have it.
  local head = 'open ' .. epoch .. ' 0 ' .. now_text .. ' ' .. ARGV[8] .. ' 0 ' .. forget .. ' ' .. slots .. ' '
    .. holds
  redis.call('HSET', KEYS[3], 'h', head, 'w', ARGV[6], 'o', ARGV[7])
  if token == '' then redis.call('PEXPIRE', KEYS[3], ARGV[5]) end

  for i = 1, limits do
    local at, key = HEAD_ARGUMENTS + PER_LIMIT * (i - 1), KEYS[3 + i]
    local kind, amount = ARGV[at + 1], ARGV[at + 3]
    if kind == 'w' then
      local slot = slot_of[i]
      if slot == last_of[i] then
        redis.call('HINCRBY', key, text(slot), amount)
        held[i] = redis.call('HINCRBY', key, 'total', amount)
      else
        local slot_text = text(slot)
        held[i] = held[i] + amount
        redis.call('HSET', key, 'total', text(held[i]), 'first', text(first_of[i] or slot), 'last', slot_text,
          slot_text, amount)
        redis.call('PEXPIRE', key, text((SLOTS_PER_WINDOW + 2) * ARGV[at + 5]))
        last_of[i] = slot
      end
    elseif kind == 'l' then
      held[i] = held[i] + redis.call('ZADD', key, until_text, request_id)
      redis.call('PEXPIRE', key, lease_ms)
    elseif amount ~= '0' then
      redis.call('HINCRBY', key, 'h', amount)
      if is_at_rest[i] then redis.call('PERSIST', key) end
      held[i] = held[i] + amount
    end
  end
end

for i = 1, limits do
  local at = HEAD_ARGUMENTS + PER_LIMIT * (i - 1)
  local kind, reset_ms = ARGV[at + 1], 0
  if kind == 'm' then
    reset_ms = math.max(0, ARGV[at + 6] - now)
  elseif held[i] ~= 0 then
    reset_ms = kind == 'l' and CONCURRENCY_RETRY_MS or (last_of[i] + SLOTS_PER_WINDOW + 1) * ARGV[at + 5] - now
  end
  answer[#answer + 1] = math.max(0, ARGV[at + 4] - held[i])
  answer[#answer + 1] = reset_ms
end
if refused == 0 and observed then
  for i = 1, #observed do answer[#answer + 1] = observed[i] end
end
return answer
