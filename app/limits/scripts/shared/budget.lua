-- Goes before scripts that count in budgets. One window of a budget is a hash:
--
--   e  the epoch in which it counts: what another epoch counted is nothing
--   c  confirmed, v its version in SQL; without them it is cold: not zero, but not known
--   u  unconfirmed: settled, not in SQL      h  held: by open reservations, and by stand-ins
--   s:<process>  what is held for a process that could not say what it holds
--
-- One that counts something has no expiry, so that no policy of eviction takes it away; one at rest is
-- forgotten after a while, and read from SQL again.
--
-- Example: HGETALL hg:{team_1}:b:budget_1:1798761600000   e 7 c 4200000000 v 12 u 0 h 1280000000

local epoch_of = {}

-- The negative of an integer given as text, for HINCRBY: amounts never pass through a double.
local function minus(amount)
  if string.sub(amount, 1, 1) == '-' then return string.sub(amount, 2) end
  return '-' .. amount
end

-- Before anything is written, every budget that will be changed is looked at.
local function look_at(key)
  epoch_of[key] = redis.call('HGET', key, 'e')
end

-- A budget of another epoch begins anew, with one amount in it.
local function renew(key, epoch, field, amount)
  redis.call('DEL', key)
  redis.call('HSET', key, 'e', epoch, field, amount)
  epoch_of[key] = epoch
end

-- Take `less` out of field `from`, where the epoch that counted it is the budget's still, and add `more` to
-- field `to` in this epoch. Both are integers as text.
local function recount(key, epoch, from, counted_epoch, less, to, more)
  if more ~= '0' and epoch_of[key] ~= epoch then
    renew(key, epoch, to, more)
    return
  end
  local was_counted = less ~= '0' and epoch_of[key] == counted_epoch
  if was_counted then redis.call('HINCRBY', key, from, minus(less)) end
  if more ~= '0' then
    redis.call('HINCRBY', key, to, more)
    if not was_counted then redis.call('PERSIST', key) end
  end
end
