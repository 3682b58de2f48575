-- Keeps which upstream holds objects of a team, so that other replicas know before the ledger does.
--
-- KEYS[1…]  the objects' keys                hg:{T8fk2mQp1x}:own:resp_abc
-- ARGV[1]   the upstream's name              openai
-- ARGV[2]   how long it is kept, seconds     86400
--
-- Answers OK. The first owner stays: a second put changes nothing.
assert(#KEYS >= 1 and #ARGV == 2, 'keep_owner takes keys and 2 arguments')
for _, key in ipairs(KEYS) do
  redis.call('SET', key, ARGV[1], 'EX', ARGV[2], 'NX')
end
return 'OK'
