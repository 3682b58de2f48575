-- Goes before scripts that end reservations for good.

-- Only remembered, so that what comes late finds it.
local function bury(due, key, request_id, tombstone, now, tombstone_ms)
  tombstone.forget = text(now + tombstone_ms)
  tombstone.slots, tombstone.held = '-', '-'
  redis.call('ZREM', due, request_id)
  redis.call('DEL', key)
  redis.call('HSET', key, 'h', head_of(tombstone))
  redis.call('PEXPIRE', key, tombstone_ms)
end
