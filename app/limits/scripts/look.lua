#!lua flags=allow-oom
-- Tell what is known of one reservation.
--
-- KEYS[1]  the reservation    hg:{team_1}:r:01936a2e-...
--
-- ARGV[1]  now in ms, only in tests; '' is the server's clock
--
-- Example: EVALSHA sha 1 hg:{t}:r:1  ''
--
-- Answers {KNOWN, state, epoch, rank, nanousd, owner, opening, record, 'output_tokens lower_nanousd'};
--         {DONE, 0}: there is none.

assert(#KEYS == 1 and #ARGV == 1, 'one key and one argument')

local known = find(KEYS[1], clock(ARGV[1]))
if not known or known.state == 'gone' or known.state == 'void' then return {DONE, 0} end
return told(KEYS[1], known)
