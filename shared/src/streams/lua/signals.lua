-- KEYS: stream, stream of dead letters. ARGV: group, page size, pages. Returns the number of dead letters; if the group
-- exists, also the backlog, whether that is exact, the number of pending entries, and the age in milliseconds of the
-- oldest entry of both.

local dead = redis.call('XLEN', KEYS[2])
if redis.call('EXISTS', KEYS[1]) == 0 then return {dead} end
local last
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local info = {}
    for i = 1, #group, 2 do info[group[i]] = group[i + 1] end
    if info.name == ARGV[1] then last = info['last-delivered-id'] end
end
if not last then return {dead} end

local page, exact = tonumber(ARGV[2]), 1
local delivered, waiting, from, to = 0, 0, '-', '(' .. last
for i = 1, ARGV[3] do
    local entries = redis.call('XRANGE', KEYS[1], from, last, 'COUNT', page)
    delivered = delivered + #entries
    if #entries < page then
        waiting = redis.call('XLEN', KEYS[1]) - delivered
        break
    end
    from = '(' .. entries[page][1]
    entries = redis.call('XRANGE', KEYS[1], to, '+', 'COUNT', page)
    waiting = waiting + #entries
    if #entries < page then break end
    to = '(' .. entries[page][1]
    if i == tonumber(ARGV[3]) then exact = 0 end
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local oldest = now
local pending = redis.call('XPENDING', KEYS[1], ARGV[1])
local first = redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', 1)[1]
for _, id in ipairs({pending[2] or last, first and first[1]}) do
    if id ~= last or pending[1] > 0 then
        oldest = math.min(oldest, tonumber(string.match(id, '^%d+')))
    end
end
return {dead, waiting, exact, pending[1], now - oldest}
