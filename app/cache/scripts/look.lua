#!lua flags=allow-oom
-- Finds a kept answer, or else gives a lease to whoever shall see to one.
--
-- KEYS[1]  the lease                             hg:cache:{5f0c…}:json:lease
-- KEYS[2]  where the answer would be, if asked   hg:cache:{5f0c…}:json
-- KEYS[3]  and where else, if anywhere           hg:cache:{5f0c…}:stream
-- ARGV[1]  the asker's token, '' if it wants no lease   01936a2e-…
-- ARGV[2]  how long a lease is, ms                      1500
--
-- Answers {1, value} with the value of KEYS[2], {2, value} with that of KEYS[3]; nil for the value where the key
--         holds no text at all;
--         {0, token} of who has the lease, the asker where nobody else has;
--         {0, nil}: there is no answer, and no lease was asked for.
-- A full server gives leases too: they are small, and gone after ARGV[2].
assert(#KEYS >= 1 and #KEYS <= 3 and #ARGV == 2, 'look takes 1 to 3 keys and 2 arguments')

for index = 2, #KEYS do
  local value = redis.pcall('GET', KEYS[index])
  if type(value) == 'table' then return {index - 1, false} end
  if value then return {index - 1, value} end
end
if ARGV[1] == '' then return {0, false} end
local holder = redis.pcall('GET', KEYS[1])
if type(holder) == 'string' and holder ~= ARGV[1] then return {0, holder} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {0, ARGV[1]}
