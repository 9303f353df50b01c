-- KEYS: stream, stream of dead letters. ARGV: group, consumer, id, reason, dead letters to keep. Moves an entry that is
-- pending for the consumer; returns 0 when it is not.

local id = ARGV[3]
if not redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2])[1] then return 0 end
local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
if entry then
    -- Lua limits the number of arguments. No entry of Atrium has as many fields.
    local fields = {unpack(entry[2], 1, math.min(#entry[2], 1000))}
    for _, part in ipairs({'dead_reason', ARGV[4], 'dead_entry', id}) do
        fields[#fields + 1] = part
    end
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', unpack(fields))
end
redis.call('XACK', KEYS[1], ARGV[1], id)
redis.call('XDEL', KEYS[1], id)
return 1
