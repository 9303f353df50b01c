-- The tenant wall, and the tables of users, revoked sign-in sessions and idempotency keys.
--
-- Every connection of the application runs as atrium_app, which owns nothing and cannot bypass row-level
-- security. A transaction names its tenant with set_config('app.org_id', …, true) and its user with
-- 'app.user_id'. current_setting() returns NULL on a fresh connection but '' on a reused one, and ''::uuid
-- fails at plan time: hence NULLIF. The sub-select makes PostgreSQL evaluate it once per statement.

-- The one definition of the wall, called for every tenant table. Only the owner may call it.
--   relation    the table to protect
--   org_column  the column with the organization's id
--   mine        a predicate for rows that a user can read *without* naming an organization ("my organizations").
--               It applies only while no organization is set, so it never adds rows to a transaction for one
--               organization.
CREATE PROCEDURE wall_by_org(relation regclass, org_column text DEFAULT 'org_id', mine text DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
    org_id CONSTANT text := '(SELECT NULLIF(current_setting(''app.org_id'', true), '''')::uuid)';
    inside CONSTANT text := format('%I = %s', org_column, org_id);
    visible text := inside;
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', relation);
    -- Without FORCE the policies would not apply to the owner.
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', relation);
    EXECUTE format('CREATE POLICY tenant ON %s FOR ALL TO atrium_app USING (%s) WITH CHECK (%s)',
                   relation, inside, inside);
    IF mine IS NOT NULL THEN
        mine := format('(%s IS NULL AND %s)', org_id, mine);
        EXECUTE format('CREATE POLICY mine ON %s FOR SELECT TO atrium_app USING (%s)', relation, mine);
        visible := format('(%s) OR %s', inside, mine);
    END IF;
    -- Permissive policies are combined with OR, so an additional one, created by error, would open the table. The
    -- restrictive policy applies in addition to all permissive ones.
    EXECUTE format('CREATE POLICY guard ON %s AS RESTRICTIVE FOR ALL TO atrium_app USING (%s) WITH CHECK (%s)',
                   relation, visible, inside);
END
$$;
REVOKE ALL ON PROCEDURE wall_by_org FROM PUBLIC;

-- The same wall for tables whose rows belong to one user instead of one organization.
CREATE PROCEDURE wall_by_user(relation regclass, user_column text)
LANGUAGE plpgsql AS $$
DECLARE
    own CONSTANT text := format('%I = (SELECT NULLIF(current_setting(''app.user_id'', true), '''')::uuid)',
                                user_column);
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', relation);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', relation);
    EXECUTE format('CREATE POLICY own ON %s FOR ALL TO atrium_app USING (%s) WITH CHECK (%s)', relation, own, own);
    EXECUTE format('CREATE POLICY guard ON %s AS RESTRICTIVE FOR ALL TO atrium_app USING (%s) WITH CHECK (%s)',
                   relation, own, own);
END
$$;
REVOKE ALL ON PROCEDURE wall_by_user FROM PUBLIC;

-- Guests are numbered; no personal data is stored. Gaps in the numbers are normal (a rolled-back sign-in).
CREATE SEQUENCE guest_number;

CREATE TABLE users (
    id         uuid        CONSTRAINT users_pkey PRIMARY KEY,
    -- The public name: guest-0042, with at least four digits. lpad() would truncate to four digits, so the 10,000th
    -- guest would have the name of the 1,000th.
    name       text        NOT NULL
                           DEFAULT 'guest-' || regexp_replace('000' || nextval('guest_number'), '^0+(?=[0-9]{4})', '')
                           CONSTRAINT users_name_unique UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);
CALL wall_by_user('users', 'id');
GRANT SELECT, INSERT (id) ON users TO atrium_app;
GRANT USAGE ON SEQUENCE guest_number TO atrium_app;

-- Sign-in sessions that ended before their access tokens expired; the tokens carry the session's id as `sid`. A row is
-- written by its own user. Every API process polls the table as the watcher, across users, so that a sign-out takes
-- effect without Redis.
CREATE TABLE revoked_auth_sessions (
    auth_session_id uuid        CONSTRAINT revoked_auth_sessions_pkey PRIMARY KEY,
    user_id         uuid        NOT NULL CONSTRAINT revoked_auth_sessions_user_fkey REFERENCES users (id),
    -- After this time the session's tokens have expired, and the row may be deleted.
    expires_at      timestamptz NOT NULL,
    revoked_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX revoked_auth_sessions_revoked_at ON revoked_auth_sessions (revoked_at);
CALL wall_by_user('revoked_auth_sessions', 'user_id');
GRANT SELECT, INSERT (auth_session_id, user_id, expires_at) ON revoked_auth_sessions TO atrium_app;

CREATE POLICY watch ON revoked_auth_sessions FOR SELECT TO atrium_watcher USING (true);
CREATE POLICY expire ON revoked_auth_sessions FOR DELETE TO atrium_watcher USING (expires_at < now());
GRANT SELECT, DELETE ON revoked_auth_sessions TO atrium_watcher;

-- The response to a create with an Idempotency-Key, stored in the transaction of the create, so that a repeated
-- request finds either the complete effect and its response, or nothing.
CREATE TABLE idempotency_keys (
    -- The caller: a user or an API key. No foreign key, because it refers to either table.
    caller_id   uuid        NOT NULL,
    -- Method and path: the same key on another resource is independent.
    route       text        NOT NULL,
    key         text        NOT NULL CONSTRAINT idempotency_keys_key_length CHECK (length(key) BETWEEN 1 AND 255),
    -- SHA-256 of the request body. The same key with another body is a client error.
    fingerprint bytea       NOT NULL,
    status      smallint    NOT NULL,
    headers     jsonb       NOT NULL,
    body        jsonb       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (caller_id, route, key)
);
CALL wall_by_user('idempotency_keys', 'caller_id');
-- Rows older than a day are deleted by the next create of the same caller.
GRANT SELECT, INSERT, DELETE ON idempotency_keys TO atrium_app;
