-- KEYS: stream, highest token. ARGV: token, then for each entry the number of its names and values, and these. Returns
-- the highest token used before, and the ids of the entries, or false when it is higher than the caller's.

local fence, token = tonumber(redis.call('GET', KEYS[2]) or 0) or 0, tonumber(ARGV[1])
if token < fence then return {fence, false} end
if token > fence then redis.call('SET', KEYS[2], ARGV[1]) end
local ids, i = {}, 2
while i <= #ARGV do
    local last = i + ARGV[i]
    ids[#ids + 1] = redis.call('XADD', KEYS[1], '*', unpack(ARGV, i + 1, last))
    i = last + 1
end
return {fence, ids}
