-- Expired records of users who do not return: recorded responses and ended sign-in sessions. Those of active users are
-- deleted with their requests; the janitor deletes the rest through the watcher. The policies limit what it may delete,
-- and it sees only the age.

CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);
CREATE POLICY expire ON idempotency_keys TO atrium_watcher USING (created_at < now() - interval '24 hours');
GRANT SELECT (created_at), DELETE ON idempotency_keys TO atrium_watcher;

-- A session's tokens are deleted with it.
CREATE INDEX auth_sessions_expires_at ON auth_sessions (expires_at);
CREATE POLICY expire ON auth_sessions TO atrium_watcher USING (expires_at < now());
GRANT SELECT (expires_at), DELETE ON auth_sessions TO atrium_watcher;
