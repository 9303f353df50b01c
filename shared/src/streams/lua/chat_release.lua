-- KEYS: lease. ARGV: token. Ends the lease if the token still has it.

if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return true
