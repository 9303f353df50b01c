-- Refresh tokens, with which a guest stays signed in longer than the lifetime of one access token.
--
-- A sign-in starts a sign-in session (`auth_session`, as opposed to chat sessions). The session has one unused refresh
-- token; using it issues its successor. A used token that is presented again later than a retry could explain was
-- copied, so the session ends for all its holders. The rows of both tables belong to one user. A token contains its
-- user's id, so it is found without a cross-tenant query.

CREATE TABLE auth_sessions (
    user_id    uuid        NOT NULL CONSTRAINT auth_sessions_user_fkey REFERENCES users (id),
    -- The claim `sid` of the session's access tokens.
    id         uuid        NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The expiry of the newest token. Later, the same user's next sign-in or refresh deletes the row.
    expires_at timestamptz NOT NULL,
    -- When a used token was presented again. No token of the session is valid after this; the row remains as a record.
    reused_at  timestamptz,
    CONSTRAINT auth_sessions_pkey PRIMARY KEY (user_id, id),
    CONSTRAINT auth_sessions_lifetime CHECK (expires_at <= started_at + interval '4320 hours')
);
CALL wall_by_user('auth_sessions', 'user_id');
-- Sign-out deletes the session.
GRANT SELECT, INSERT (user_id, id, expires_at), UPDATE (expires_at, reused_at), DELETE ON auth_sessions TO atrium_app;

CREATE TABLE refresh_tokens (
    user_id         uuid        NOT NULL,
    auth_session_id uuid        NOT NULL,
    -- SHA-256 of the token; the token itself is not stored.
    hash            bytea       NOT NULL CONSTRAINT refresh_tokens_hash_length CHECK (length(hash) = 32),
    expires_at      timestamptz NOT NULL,
    used_at         timestamptz,
    -- The successor can be derived from this and the used token together, for a client that lost the response.
    -- Deleted by the first refresh after the grace period.
    successor_salt  bytea       CONSTRAINT refresh_tokens_salt_length CHECK (length(successor_salt) = 32),
    CONSTRAINT refresh_tokens_pkey PRIMARY KEY (user_id, auth_session_id, hash),
    CONSTRAINT refresh_tokens_auth_session_fkey FOREIGN KEY (user_id, auth_session_id)
        REFERENCES auth_sessions (user_id, id) ON DELETE CASCADE,
    CONSTRAINT refresh_tokens_salt_of_used CHECK (successor_salt IS NULL OR used_at IS NOT NULL),
    -- Concurrent refreshes create only one successor.
    CONSTRAINT refresh_tokens_one_unused EXCLUDE (user_id WITH =, auth_session_id WITH =) WHERE (used_at IS NULL)
);
CALL wall_by_user('refresh_tokens', 'user_id');
GRANT SELECT, INSERT (user_id, auth_session_id, hash, expires_at), UPDATE (used_at, successor_salt), DELETE
    ON refresh_tokens TO atrium_app;
