-- Finds which upstream holds a team's object.
--
-- KEYS[1]  the object's key                  hg:{T8fk2mQp1x}:own:resp_abc
--
-- Answers the upstream's name, or nil where this team has no such object.
assert(#KEYS == 1 and #ARGV == 0, 'find_owner takes 1 key and no arguments')
return redis.call('GET', KEYS[1])
