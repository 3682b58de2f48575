#!lua flags=no-writes,allow-stale
-- Tell what is counted of limits of requests, tokens and concurrency. Nothing is written.
--
-- KEYS[1], …  what is counted of each limit    hg:{team_1}:l:limit_1
--
-- ARGV[1]  now in ms, only in tests; '' is the server's clock
-- then for each limit i:
--   kind     w a window, l leases                                  w
--   slot_ms of a window                                            1000
--
-- Example: EVALSHA sha 2 hg:{t}:l:a hg:{t}:l:b  ''  w 1000  l 0
--
-- Answers {COUNTED, held, reset_ms, ...}: two numbers per limit, as reserve.lua counts.

local SLOTS_PER_WINDOW = 60
local CONCURRENCY_RETRY_MS = 1000

assert(#KEYS > 0 and #ARGV == 1 + 2 * #KEYS, 'each limit has one key and two arguments')

local now = clock(ARGV[1])
local answer = {COUNTED}
for i = 1, #KEYS do
  local key, slot_ms, held, reset_ms = KEYS[i], tonumber(ARGV[1 + 2 * i]), 0, 0
  if ARGV[2 * i] == 'l' then
    held = redis.call('ZCOUNT', key, '(' .. text(now), '+inf')
    reset_ms = held > 0 and CONCURRENCY_RETRY_MS or 0
  else
    local counted = redis.call('HMGET', key, 'total', 'first', 'last')
    if counted[3] then
      local slot, first, last = math.floor(now / slot_ms), tonumber(counted[2]), tonumber(counted[3])
      local is_set_back = last > slot + SLOTS_PER_WINDOW
      if last > slot and not is_set_back then slot = last end
      local oldest = slot - SLOTS_PER_WINDOW
      if not is_set_back and last >= oldest then
        held = tonumber(counted[1])
        if first < oldest then
          local left = {}
          for gone = first, oldest - 1 do left[#left + 1] = text(gone) end
          for _, part in ipairs(redis.call('HMGET', key, unpack(left))) do held = held - (part or 0) end
        end
        if held ~= 0 then reset_ms = (last + SLOTS_PER_WINDOW + 1) * slot_ms - now end
      end
    end
  end
  answer[#answer + 1] = held
  answer[#answer + 1] = reset_ms
end
return answer
