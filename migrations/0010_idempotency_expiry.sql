-- What users who never come back leave behind: recorded answers and sign-ins that are over. Who does come back clears
-- up their own; for everybody else the janitor does, through the watcher. The policies say what it may delete, and it
-- sees no more of it than how old it is.

CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);
CREATE POLICY expire ON idempotency_keys TO atrium_watcher USING (created_at < now() - interval '24 hours');
GRANT SELECT (created_at), DELETE ON idempotency_keys TO atrium_watcher;

-- A family's tokens go with it.
CREATE INDEX refresh_families_expires_at ON refresh_families (expires_at);
CREATE POLICY expire ON refresh_families TO atrium_watcher USING (expires_at < now());
GRANT SELECT (expires_at), DELETE ON refresh_families TO atrium_watcher;
