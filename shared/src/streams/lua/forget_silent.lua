-- KEYS: stream. ARGV: group, idle milliseconds. Removes consumers that have been idle for longer and have nothing
-- pending; returns how many.

local removed = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local info = {}
    for i = 1, #consumer, 2 do info[consumer[i]] = consumer[i + 1] end
    if info.pending == 0 and info.idle > tonumber(ARGV[2]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], info.name)
        removed = removed + 1
    end
end
return removed
