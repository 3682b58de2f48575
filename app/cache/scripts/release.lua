#!lua flags=allow-oom
-- Gives a lease back.
--
-- KEYS[1]  the lease                    hg:cache:{5f0c…}:json:lease
-- ARGV[1]  the token that may have it   01936a2e-…
--
-- Answers 1, or 0 where the token has it no more.
assert(#KEYS == 1 and #ARGV == 1, 'release takes 1 key and 1 argument')
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
