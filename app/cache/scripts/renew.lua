#!lua flags=allow-oom
-- Prolongs a lease, or puts it back where it has lapsed and nobody has it now.
--
-- KEYS[1]  the lease                        hg:cache:{5f0c…}:json:lease
-- ARGV[1]  the token whose it is            01936a2e-…
-- ARGV[2]  how long it is from now on, ms   1500
--
-- Answers 1, or 0 where another token has it.
-- A full server takes it back too: it is small, and gone after ARGV[2].
assert(#KEYS == 1 and #ARGV == 2, 'renew takes 1 key and 2 arguments')
local holder = redis.pcall('GET', KEYS[1])
if type(holder) == 'string' and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
