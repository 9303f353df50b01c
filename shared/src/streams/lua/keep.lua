-- KEYS: stream. ARGV: group, consumer, then ids. Resets the idle time of those that are pending for the consumer;
-- returns how many are.

local kept = 0
for i = 3, #ARGV do
    local id = ARGV[i]
    if redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2])[1] then
        redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'JUSTID')
        kept = kept + 1
    end
end
return kept
