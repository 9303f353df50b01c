-- KEYS: lease, epoch, run, live stream. ARGV: token, lease period in milliseconds, this run of Redis, the newest entry
-- under the caller's last lease, digits for a new history, digits for a new run, the token of the caller's last lease.
-- Returns the epoch and the newest entry, or nothing while another owner has the lease.

local holder = redis.call('GET', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
if holder and holder ~= ARGV[7] and left >= 0 and left <= tonumber(ARGV[2]) then return false end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local epoch = redis.call('GET', KEYS[2])
local last = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
local tip = last and last[1] or ''
local whole = redis.call('GET', KEYS[3]) == ARGV[3] or tip == ARGV[4]
if not epoch then epoch = ARGV[5] .. ARGV[6]
elseif not whole then epoch = string.sub(epoch, 1, 8) .. ARGV[6] end
redis.call('SET', KEYS[2], epoch)
redis.call('SET', KEYS[3], ARGV[3])
return {epoch, tip}
