-- Keeps which upstream holds a team's object, so that other replicas know before the ledger does.
--
-- KEYS[1]  the object's key                  hg:{T8fk2mQp1x}:own:resp_abc
-- ARGV[1]  the upstream's name               openai
-- ARGV[2]  how long it is kept, seconds      86400
--
-- Answers OK. The first owner stays: a second put changes nothing.
assert(#KEYS == 1 and #ARGV == 2, 'keep_owner takes 1 key and 2 arguments')
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2], 'NX')
return 'OK'
