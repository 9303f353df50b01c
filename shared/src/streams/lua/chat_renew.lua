-- KEYS: lease. ARGV: token, term in milliseconds. Answers whether the lease is still the token's.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
