-- KEYS: processes. ARGV: process, milliseconds without a heartbeat after which a process is removed. Returns the live
-- processes. A heartbeat later than now was recorded before the clock was set back and is removed; a live process sends
-- another one.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')
return redis.call('ZRANGE', KEYS[1], 0, -1)
