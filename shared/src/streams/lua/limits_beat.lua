-- KEYS: processes. ARGV: process, milliseconds without a heartbeat after which a process is removed. Returns how many
-- are live.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], now + ARGV[2], '+inf')
return redis.call('ZCARD', KEYS[1])
