-- KEYS: stream, lease. ARGV: token, group, consumer, count. Reads entries if the token has the lease; otherwise
-- returns 0.

if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
return redis.call('XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', ARGV[4], 'STREAMS', KEYS[1], '>') or {}
