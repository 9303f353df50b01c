-- Refresh tokens: what lets a guest stay longer than one access token lives.
--
-- A sign-in begins a sign-in session (`auth_session`, unlike the chat's sessions). The session has one unused token;
-- using it creates its successor. A used token that is sent again later than a retry explains is a copy: the session
-- ends for all holders. Both tables belong to one user. A token contains its user's id, so it is found without a
-- cross-tenant query.

CREATE TABLE auth_sessions (
    user_id    uuid        NOT NULL CONSTRAINT auth_sessions_user_fkey REFERENCES users (id),
    -- The claim `sid` of the access tokens issued in the session.
    id         uuid        NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Its newest token's. Deleted after it by the same user's next sign-in or refresh.
    expires_at timestamptz NOT NULL,
    -- When a used token was sent again. The row stays as the record of it; no token of the session is valid after it.
    reused_at  timestamptz,
    CONSTRAINT auth_sessions_pkey PRIMARY KEY (user_id, id),
    CONSTRAINT auth_sessions_lifetime CHECK (expires_at <= started_at + interval '4320 hours')
);
CALL wall_by_user('auth_sessions', 'user_id');
-- Signing out deletes the session.
GRANT SELECT, INSERT (user_id, id, expires_at), UPDATE (expires_at, reused_at), DELETE ON auth_sessions TO atrium_app;

CREATE TABLE refresh_tokens (
    user_id         uuid        NOT NULL,
    auth_session_id uuid        NOT NULL,
    -- SHA-256 of the token; the token itself is nowhere but with its holder.
    hash            bytea       NOT NULL CONSTRAINT refresh_tokens_hash_length CHECK (length(hash) = 32),
    expires_at      timestamptz NOT NULL,
    used_at         timestamptz,
    -- With the used token, and only with it, this gives the successor again, for a client that lost the answer.
    -- Deleted by the first refresh after the grace.
    successor_salt  bytea       CONSTRAINT refresh_tokens_salt_length CHECK (length(successor_salt) = 32),
    CONSTRAINT refresh_tokens_pkey PRIMARY KEY (user_id, auth_session_id, hash),
    CONSTRAINT refresh_tokens_auth_session_fkey FOREIGN KEY (user_id, auth_session_id)
        REFERENCES auth_sessions (user_id, id) ON DELETE CASCADE,
    CONSTRAINT refresh_tokens_salt_of_used CHECK (successor_salt IS NULL OR used_at IS NOT NULL),
    -- Any number of concurrent refreshes create one successor.
    CONSTRAINT refresh_tokens_one_unused EXCLUDE (user_id WITH =, auth_session_id WITH =) WHERE (used_at IS NULL)
);
CALL wall_by_user('refresh_tokens', 'user_id');
GRANT SELECT, INSERT (user_id, auth_session_id, hash, expires_at), UPDATE (used_at, successor_salt), DELETE
    ON refresh_tokens TO atrium_app;
