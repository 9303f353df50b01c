-- KEYS: stream, stream of dead letters. ARGV: id of the dead letter. Puts it back; answers 0 when it is not there.

local entry = redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1])[1]
if not entry then return 0 end
-- Without the reason and the former id, which were added at its end.
redis.call('XADD', KEYS[1], '*', unpack(entry[2], 1, #entry[2] - 4))
return redis.call('XDEL', KEYS[2], ARGV[1])
