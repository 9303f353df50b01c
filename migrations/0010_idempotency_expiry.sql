-- Expired rows of users who do not return: recorded responses and sign-in sessions. Users who return delete their own
-- expired rows; the janitor deletes all others, as atrium_watcher. The policies restrict which rows it may delete, and
-- it can read only their times.

CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);
CREATE POLICY expire ON idempotency_keys TO atrium_watcher USING (created_at < now() - interval '24 hours');
GRANT SELECT (created_at), DELETE ON idempotency_keys TO atrium_watcher;

-- A session's refresh tokens are deleted by cascade.
CREATE INDEX auth_sessions_expires_at ON auth_sessions (expires_at);
CREATE POLICY expire ON auth_sessions TO atrium_watcher USING (expires_at < now());
GRANT SELECT (expires_at), DELETE ON auth_sessions TO atrium_watcher;
