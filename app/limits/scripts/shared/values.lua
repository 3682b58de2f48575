-- Goes before scripts that change what budgets have confirmed, or leave them at rest; behind budget.lua.

-- Assign what SQL has, if it is newer: 1, else 0.
local function assign(key, epoch, spent, version)
  if epoch_of[key] ~= epoch then
    renew(key, epoch, 'c', spent)
  else
    local known = redis.call('HGET', key, 'v')
    if known and tonumber(version) <= tonumber(known) then return 0 end
  end
  redis.call('HSET', key, 'c', spent, 'v', version)
  return 1
end

-- Let a budget that counts nothing but what SQL knows be forgotten.
local function rest(key, kept_ms)
  local counted = redis.call('HMGET', key, 'u', 'h')
  if (counted[1] or '0') == '0' and (counted[2] or '0') == '0' then redis.call('PEXPIRE', key, kept_ms) end
end
