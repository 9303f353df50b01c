-- KEYS: stream, stream of dead letters. ARGV: id of the dead letter. Moves it back; returns 0 when it does not exist.

local entry = redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1])[1]
if not entry then return 0 end
-- Without the last two fields, the reason and the former id.
redis.call('XADD', KEYS[1], '*', unpack(entry[2], 1, #entry[2] - 4))
return redis.call('XDEL', KEYS[2], ARGV[1])
