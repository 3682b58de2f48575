-- Goes before scripts that read reservations. One is a hash:
--
--   h  the head: state epoch rank admitted_at_ms bound nanousd forget_at_ms slots held
--      state is open, done, gone or void; slots (of each limit, 0 where it has none) and held (in each
--      budget) are lists with commas, or '-'
--   w  its owner        o  its opening     k  its outcome's record, once it is done
--   b  what has been seen of it while it ran: output_tokens lower_nanousd
--
-- Example: HGETALL hg:{team_1}:r:01936a2e-...
--   h 'open 7 0 1800000000123 1280000000 0 0 30000000,0,0 1280000000'  w gateway-1  o ...

-- What is known of a reservation; nil once it is time to forget it. The server forgets it too, by its own clock.
local function find(key, now)
  local head = redis.call('HGET', key, 'h')
  if not head then return nil end
  local state, epoch, rank, admitted, bound, nanousd, forget, slots, held =
    string.match(head, '^(%a+) (%d+) (%d) (%d+) (%-?%d+) (%-?%d+) (%d+) (%S+) (%S+)$')
  assert(state, 'this is no reservation')
  if forget ~= '0' and tonumber(forget) <= now then
    redis.call('DEL', key)
    return nil
  end
  return {
    state = state, epoch = epoch, rank = rank, admitted = admitted, bound = bound, nanousd = nanousd,
    forget = forget, slots = slots, held = held,
  }
end

local function head_of(known)
  return known.state .. ' ' .. known.epoch .. ' ' .. known.rank .. ' ' .. known.admitted .. ' ' .. known.bound .. ' '
    .. known.nanousd .. ' ' .. known.forget .. ' ' .. known.slots .. ' ' .. known.held
end

-- The amounts that it holds, as text, in the order of its budgets.
local function held_of(known)
  local held = {}
  if known.held ~= '-' then
    for amount in string.gmatch(known.held, '[^,]+') do held[#held + 1] = amount end
  end
  return held
end
