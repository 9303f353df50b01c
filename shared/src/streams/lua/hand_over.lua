-- KEYS: stream. ARGV: group, consumer, id, idle milliseconds. Makes an entry of the consumer claimable immediately, by
-- setting its idle time, and subtracts this delivery from its count.

local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])[1]
if pending then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3],
               'IDLE', ARGV[4], 'RETRYCOUNT', pending[4] - 1, 'JUSTID')
end
return true
