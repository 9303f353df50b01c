-- KEYS: inbound, live, lease, epoch. ARGV: token, epoch, group, maximal length, then for each entry its id, the number
-- of names and values of the event to publish (0: nothing), and these. Returns the id of the last published event, or
-- nothing when the token does not have the lease.
--
-- An entry that is no longer pending was already published, and is not published again. A caller that lost the lease,
-- in a pause or a flush, changes nothing. A script is not rolled back when one of its commands fails, as XADD does when
-- Redis is out of memory. So it publishes first and acknowledges afterwards, and an entry that could not be published
-- stays pending.

if redis.call('GET', KEYS[3]) ~= ARGV[1] or redis.call('GET', KEYS[4]) ~= ARGV[2] then return false end
local published, i = '', 5
while i <= #ARGV do
    local id, last = ARGV[i], i + 1 + ARGV[i + 1]
    if #redis.call('XPENDING', KEYS[1], ARGV[3], id, id, 1) == 1 then
        if last > i + 1 then
            published = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', unpack(ARGV, i + 2, last))
        end
        redis.call('XACK', KEYS[1], ARGV[3], id)
    end
    redis.call('XDEL', KEYS[1], id)
    i = last + 1
end
return published
