-- KEYS: stream. ARGV: group, entries to check. Moves the group back to the first entry before its position that is
-- pending for no consumer; returns 1 if there was one, otherwise 0.

local last
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local info = {}
    for i = 1, #group, 2 do info[group[i]] = group[i + 1] end
    if info.name == ARGV[1] then last = info['last-delivered-id'] end
end
if not last then return 0 end
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', last, 'COUNT', ARGV[2])) do
    local id = entry[1]
    if not redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1] then
        local ms, seq = string.match(id, '^(%d+)-(%d+)$')
        local before = ms .. '-' .. string.format('%.0f', seq - 1)
        if seq == '0' then before = string.format('%.0f', ms - 1) .. '-18446744073709551615' end
        redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], before)
        return 1
    end
end
return 0
