#!lua flags=allow-oom
-- Prolongs a lease.
--
-- KEYS[1]  the lease                        hg:cache:{5f0c…}:json:lease
-- ARGV[1]  the token that may have it       01936a2e-…
-- ARGV[2]  how long it is from now on, ms   1500
--
-- Answers 1, or 0 where the token has it no more.
assert(#KEYS == 1 and #ARGV == 2, 'renew takes 1 key and 2 arguments')
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
