-- KEYS: stream, lease. ARGV: token, group, consumer, count. Takes entries if the lease has this token; returns 0 if
-- not.

if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
return redis.call('XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', ARGV[4], 'STREAMS', KEYS[1], '>') or {}
