-- Take a claim from every one of its limits, or from none.
--
-- KEYS[1]    the reservation          hg:{team_1}:reservation:01936a2e-...
-- KEYS[1+i]  what is held of limit i  hg:{team_1}:key:key_1:requests_per_minute
--
-- ARGV[1]  now in ms, only in tests; '' is the server's clock
-- ARGV[2]  request id                                              01936a2e-...
-- ARGV[3]  for how many ms the reservation is remembered           61000
-- ARGV[4]  for how many ms a lease lasts without a heartbeat       15000
-- then for each limit i:
--   kind     requests | tokens | concurrency                       tokens
--   amount                                                         1200
--   maximum                                                        100000
--   slot_ms  length of a slot of the window, 0 for concurrency     1000
--
-- Example: EVALSHA sha 3 hg:{t}:reservation:r hg:{t}:key:k:requests_per_minute hg:{t}:key:k:concurrency
--          '' r 61000 15000  requests 1 600 1000  concurrency 1 20 0
--
-- Answers {0, admitted_at_ms, remaining, reset_ms, ...} with two numbers per limit: granted;
--         {1, i, retry_after_ms, remaining, reset_ms, ...}: refused, limit i waits longest (-1: for ever);
--         {2}: this reservation was voided, since its owner gave up waiting for an answer.
--
-- A window is a hash: total, first and last (its oldest and newest slot), and one field per slot.
-- Leases are a sorted set of request ids by expiry. A reservation is the text
-- 'open <admitted_at_ms> <slot of limit 1> <slot of limit 2> ...', or 'void'.
-- Numbers are doubles: they are exact up to 2^53, and text() keeps '1e+14' out of the data.

local SLOTS_PER_WINDOW = 60
local CONCURRENCY_RETRY_MS = 1000
local HEAD, PER_LIMIT = 4, 4

assert(#ARGV == HEAD + PER_LIMIT * (#KEYS - 1), 'reserve: each limit has one key and four arguments')

local function text(number)
  return string.format('%.0f', number)
end

local function server_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local now = tonumber(ARGV[1]) or server_ms()
local request_id, remember_ms, lease_ms = ARGV[2], ARGV[3], ARGV[4]

local window, leases = {}, {}

-- What is counted in each slot; one answer with everything is cheaper than a look for each.
local function read_slots(key)
  local held, amounts = redis.call('HGETALL', key), {}
  for i = 1, #held, 2 do
    local slot = tonumber(held[i])
    if slot then amounts[slot] = tonumber(held[i + 1]) end
  end
  return amounts
end

-- Forget the slots that have left the window; find the slot that counts now.
function window.open(limit)
  local held = redis.call('HMGET', limit.key, 'total', 'first', 'last')
  local slot = math.floor(now / limit.slot_ms)
  limit.held, limit.slot = tonumber(held[1] or 0), slot
  if not held[3] then return end
  local first, last = tonumber(held[2]), tonumber(held[3])
  -- A clock that was set back a little stands still here until it has caught up. Set back by more
  -- than a window, it would lock the limit for as long: then what was counted is forgotten.
  local set_back = last > slot + SLOTS_PER_WINDOW
  if not set_back and last > slot then slot = last end
  local oldest = slot - SLOTS_PER_WINDOW
  if set_back or last < oldest then
    redis.call('DEL', limit.key)
    limit.held = 0
    return
  end
  limit.slot = slot
  if first < oldest then
    local left = {}
    for gone = first, oldest - 1 do left[#left + 1] = text(gone) end
    for _, amount in ipairs(redis.call('HMGET', limit.key, unpack(left))) do
      limit.held = limit.held - (amount or 0)
    end
    redis.call('HDEL', limit.key, unpack(left))
    first = oldest
    redis.call('HSET', limit.key, 'total', text(limit.held), 'first', text(first))
  end
  limit.first, limit.last = first, last
end

-- How long until the amount fits: 0 now, huge never.
function window.wait_ms(limit)
  local excess = limit.held + limit.amount - limit.maximum
  if excess <= 0 or limit.amount == 0 then return 0 end
  if limit.amount <= limit.maximum then
    local amounts = read_slots(limit.key)
    for slot = limit.first, limit.last do
      excess = excess - (amounts[slot] or 0)
      if excess <= 0 then return (slot + SLOTS_PER_WINDOW + 1) * limit.slot_ms - now end
    end
  end
  return math.huge
end

function window.take(limit)
  local slot = text(limit.slot)
  if limit.slot == limit.last then
    redis.call('HINCRBY', limit.key, slot, text(limit.amount))
    limit.held = redis.call('HINCRBY', limit.key, 'total', text(limit.amount))
    return
  end
  limit.held = limit.held + limit.amount
  limit.first, limit.last = limit.first or limit.slot, limit.slot
  redis.call('HSET', limit.key, 'total', text(limit.held), 'first', text(limit.first), 'last', slot,
    slot, text(limit.amount))
  redis.call('PEXPIRE', limit.key, text((SLOTS_PER_WINDOW + 2) * limit.slot_ms))
end

function window.reset_ms(limit)
  if limit.held == 0 then return 0 end
  return (limit.last + SLOTS_PER_WINDOW + 1) * limit.slot_ms - now
end

function leases.open(limit)
  redis.call('ZREMRANGEBYSCORE', limit.key, '-inf', text(now))
  limit.held, limit.slot = redis.call('ZCARD', limit.key), 0
end

function leases.wait_ms(limit)
  if limit.amount > limit.maximum then return math.huge end
  if limit.amount == 0 or limit.held + limit.amount <= limit.maximum then return 0 end
  return CONCURRENCY_RETRY_MS
end

function leases.take(limit)
  limit.held = limit.held + redis.call('ZADD', limit.key, text(now + lease_ms), request_id)
  redis.call('PEXPIRE', limit.key, lease_ms)
end

function leases.reset_ms(limit)
  return limit.held > 0 and CONCURRENCY_RETRY_MS or 0
end

local reservation = redis.call('GET', KEYS[1])
if reservation == 'void' then return {2} end

local limits, refused, longest = {}, 0, 0
for i = 1, #KEYS - 1 do
  local at = HEAD + PER_LIMIT * (i - 1)
  local limit = {
    key = KEYS[1 + i],
    gauge = ARGV[at + 1] == 'concurrency' and leases or window,
    -- A claim that is held already is granted again and not counted twice.
    amount = reservation and 0 or tonumber(ARGV[at + 2]),
    maximum = tonumber(ARGV[at + 3]),
    slot_ms = tonumber(ARGV[at + 4]),
  }
  limits[i] = limit
  limit.gauge.open(limit)
  local wait = limit.gauge.wait_ms(limit)
  if wait > longest then refused, longest = i, wait end
end

local answer
if refused > 0 then
  answer = {1, refused, longest == math.huge and -1 or longest}
elseif reservation then
  answer = {0, tonumber(string.match(reservation, '^open (%d+)'))}
else
  local kept = {'open', text(now)}
  for i = 1, #limits do kept[2 + i] = text(limits[i].slot) end
  redis.call('SET', KEYS[1], table.concat(kept, ' '), 'PX', remember_ms)
  for i = 1, #limits do limits[i].gauge.take(limits[i]) end
  answer = {0, now}
end

for i = 1, #limits do
  local limit = limits[i]
  answer[#answer + 1] = math.max(0, limit.maximum - limit.held)
  answer[#answer + 1] = limit.gauge.reset_ms(limit)
end
return answer
