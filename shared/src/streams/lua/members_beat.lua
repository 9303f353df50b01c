-- KEYS: the set. ARGV: this process, milliseconds without heartbeat after which a process is removed. A heartbeat in
-- the future was written before the clock was set back; a live process will send another.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')
return redis.call('ZRANGE', KEYS[1], 0, -1)
