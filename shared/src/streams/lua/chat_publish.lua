-- KEYS: inbound, live, lease, epoch. ARGV: token, epoch, group, maximal length, then for each entry its id, the number
-- of names and values of the event to publish (0: nothing), and these. Answers the id of the last event published, or
-- nothing when the lease is not the token's.
--
-- An entry that is no longer pending was published before: it is not published again. The lease is the fence: a process
-- that lost it, by a pause or a flush, changes nothing. A script is not rolled back when a command in it fails, as XADD
-- does when Redis is out of memory: so it publishes first and acknowledges after, and unpublished entries stay pending.

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
