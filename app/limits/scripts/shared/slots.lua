-- Goes before scripts that end reservations: what was counted at admission becomes what was used.

-- What has to be changed in windows, after a look at each: {key, slot, difference, ...}. `at` is where the
-- kinds and differences of the limits begin in ARGV, in the order in which they were reserved.
--
-- A slot that has left the window is either gone or about to be, so no clock is needed. A reservation
-- that was put back after a loss has no slots: windows begin afresh then.
local function corrections(known, at)
  local changes, i = {}, 0
  for slot in string.gmatch(known.slots, '%d+') do
    i = i + 1
    local difference = ARGV[at + 2 * i - 1]
    if ARGV[at + 2 * i - 2] == 'w' and difference ~= '0' then
      local key = KEYS[3 + i]
      local counted = tonumber(redis.call('HGET', key, slot) or nil)
      if counted then
        local n = #changes
        changes[n + 1], changes[n + 2], changes[n + 3] = key, slot, math.max(tonumber(difference), -counted)
      end
    end
  end
  return changes
end

local function correct(changes)
  for i = 1, #changes, 3 do
    local difference = text(changes[i + 2])
    redis.call('HINCRBY', changes[i], changes[i + 1], difference)
    redis.call('HINCRBY', changes[i], 'total', difference)
  end
end
