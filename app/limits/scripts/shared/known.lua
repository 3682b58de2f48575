-- Goes before scripts that tell what is known of a reservation.

-- {KNOWN, state, epoch, rank, nanousd, owner, opening, record, seen}
local function told(key, known)
  local kept = redis.call('HMGET', key, 'w', 'o', 'k', 'b')
  return {
    KNOWN, known.state, known.epoch, known.rank, known.nanousd,
    kept[1] or '', kept[2] or '', kept[3] or '', kept[4] or '0 0',
  }
end
