-- KEYS: bucket, whole. ARGV: window, interval (both in microseconds), cells to take, what the bucket lacks according to
-- the caller, whether the caller has used these buckets before, how much a bucket may have after buckets were lost.
-- Returns how many cells were taken, and what the bucket lacks now, in microseconds.
--
-- A bucket is stored as the time at which it will be full. A time beyond the window was stored before the clock was
-- set back. `whole` is the time in microseconds since which the buckets are complete; 0 for always.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local window, interval = tonumber(ARGV[1]), tonumber(ARGV[2])
local whole = tonumber(redis.call('GET', KEYS[2]) or '')
if not whole or whole > now then
    whole = 0
    if ARGV[5] == '1' then whole = now end
    redis.call('SET', KEYS[2], string.format('%.0f', whole))
end
local stored = tonumber(redis.call('GET', KEYS[1]) or 0)
local full_at = math.max(now, stored, now + ARGV[4], whole + window - ARGV[6])
full_at = math.min(full_at, now + window)
local cells = math.min(tonumber(ARGV[3]), math.floor((now + window - full_at) / interval))
full_at = full_at + cells * interval
if full_at ~= stored and full_at > now then
    redis.call('SET', KEYS[1], string.format('%.3f', full_at), 'PX', math.ceil((full_at - now) / 1000))
end
return { cells, math.ceil(full_at - now) }
