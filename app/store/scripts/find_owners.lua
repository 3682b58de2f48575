-- Finds which upstreams hold a team's objects.
--
-- KEYS[1…]  the objects' keys                 hg:{T8fk2mQp1x}:own:resp_abc
--
-- Answers an upstream's name for each, or nil where this team has no such object.
assert(#KEYS >= 1 and #ARGV == 0, 'find_owners takes keys and no arguments')
return redis.call('MGET', unpack(KEYS))
