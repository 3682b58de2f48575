-- Keeps an answer, perhaps in two forms, and gives the lease on it back.
--
-- KEYS[1]  the answer's key                     hg:cache:{5f0c…}:json
-- KEYS[2]  the lease                            hg:cache:{5f0c…}:json:lease
-- KEYS[3]  the key of the other form, if any    hg:cache:{5f0c…}:stream
-- ARGV[1]  the token that may have the lease, '' if none has   01936a2e-…
-- ARGV[2]  the value of KEYS[1]
-- ARGV[3]  how long it is kept, ms              3600000
-- ARGV[4]  the value of KEYS[3], with ARGV[5] its ms; without them what is at KEYS[3] goes
--
-- Answers OK, or the error with which the server refused the first value; KEYS[3] is as it was then. Where only the
-- second value is refused, what was there goes: it is older than the first.
-- There are no flags in front of this script: with them a full server would refuse all of it, and the lease would
-- stay. So it refuses the SET alone.
assert((#KEYS == 2 and #ARGV == 3) or (#KEYS == 3 and (#ARGV == 3 or #ARGV == 5)),
  'keep takes 2 keys and 3 arguments, or 3 keys and 3 or 5 arguments')

local kept = redis.pcall('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
if #KEYS == 3 and not kept.err then
  local derived = #ARGV == 5 and redis.pcall('SET', KEYS[3], ARGV[4], 'PX', ARGV[5])
  if not derived or derived.err then redis.pcall('DEL', KEYS[3]) end
end
if ARGV[1] ~= '' and redis.pcall('GET', KEYS[2]) == ARGV[1] then redis.pcall('DEL', KEYS[2]) end
return kept
