-- KEYS: stream. ARGV: group, then for each entry its id and its message. Returns the ids of the entries that
-- are missing or will not be delivered, and deletes the latter.
--
-- A missing group starts with the first entry when it is created. An entry with another message belongs to another
-- history of Redis, before or after a loss, and counts as missing.

local function above(id, other)
    local ms, seq = string.match(id, '^(%d+)-(%d+)$')
    local other_ms, other_seq = string.match(other, '^(%d+)-(%d+)$')
    ms, seq, other_ms, other_seq = tonumber(ms), tonumber(seq), tonumber(other_ms), tonumber(other_seq)
    return ms > other_ms or (ms == other_ms and seq > other_seq)
end
local delivered = '0-0'
local groups = redis.call('EXISTS', KEYS[1]) == 1 and redis.call('XINFO', 'GROUPS', KEYS[1]) or {}
for _, group in ipairs(groups) do
    local info = {}
    for i = 1, #group, 2 do info[group[i]] = group[i + 1] end
    if info.name == ARGV[1] then delivered = info['last-delivered-id'] end
end
local lost = {}
for i = 2, #ARGV, 2 do
    local id, ours = ARGV[i], false
    local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
    for at = 1, entry and #entry[2] or 0, 2 do
        ours = ours or (entry[2][at] == 'message' and entry[2][at + 1] == ARGV[i + 1])
    end
    local live = ours
        and (above(id, delivered) or #redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1) == 1)
    if ours and not live then redis.call('XDEL', KEYS[1], id) end
    if not live then lost[#lost + 1] = id end
end
return lost
