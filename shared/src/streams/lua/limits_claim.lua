-- KEYS: hash of process → `count:ms`, whole. ARGV: process, its open streams, how many more it requests, quota,
-- milliseconds after a loss until every process has reported its count again, milliseconds without a report after
-- which a process is removed, whether the caller has used these keys before. Returns how many more are granted.
--
-- `whole` is the time in microseconds since which the hash is complete; 0 for always.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local silent_after, count = tonumber(ARGV[6]), tonumber(ARGV[2])
local whole = tonumber(redis.call('GET', KEYS[2]) or '')
if not whole or whole > time[1] * 1000000 + time[2] then
    whole = 0
    if ARGV[7] == '1' then whole = time[1] * 1000000 + time[2] end
    redis.call('SET', KEYS[2], string.format('%.0f', whole))
end
local others = 0
local entries = redis.call('HGETALL', KEYS[1])
for i = 1, #entries, 2 do
    if entries[i] ~= ARGV[1] then
        local held, at = string.match(entries[i + 1], '^(%d+):(%d+)$')
        if math.abs(now - at) > silent_after then
            redis.call('HDEL', KEYS[1], entries[i])
        else
            others = others + held
        end
    end
end
local most = ARGV[4] - others
if now - math.floor(whole / 1000) < tonumber(ARGV[5]) then most = count end
local granted = math.max(0, math.min(tonumber(ARGV[3]), most - count))
count = count + granted
if count > 0 then
    redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f:%.0f', count, now))
    redis.call('PEXPIRE', KEYS[1], silent_after)
else
    redis.call('HDEL', KEYS[1], ARGV[1])
end
return granted
