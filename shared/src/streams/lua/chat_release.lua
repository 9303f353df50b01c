-- KEYS: lease. ARGV: token. Ends the lease if it is still the token's.

if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return true
