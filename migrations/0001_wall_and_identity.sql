-- The tenant wall, and the users on both sides of it.
--
-- Every connection of the application runs as atrium_app, which owns nothing and cannot bypass row-level
-- security. A transaction names its tenant with set_config('app.org_id', …, true) and its user with
-- 'app.user_id'. current_setting() answers NULL on a fresh connection but '' on a reused one, and ''::uuid
-- fails at plan time: hence NULLIF. The sub-select makes PostgreSQL evaluate it once a statement.

-- One definition of the wall, called for every tenant table. It is the owner's tool: nobody else may call it.
--   relation    the table to wall
--   org_column  the column that holds the organization
--   mine        a predicate under which a user sees rows *without* naming an organization ("my organizations").
--               It opens only while no organization is set, so a transaction for one organization never widens.
CREATE PROCEDURE wall_by_org(relation regclass, org_column text DEFAULT 'org_id', mine text DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
    org_id CONSTANT text := '(SELECT NULLIF(current_setting(''app.org_id'', true), '''')::uuid)';
    inside CONSTANT text := format('%I = %s', org_column, org_id);
    visible text := inside;
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', relation);
    -- Without FORCE the owner would pass the wall.
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', relation);
    EXECUTE format('CREATE POLICY tenant ON %s FOR ALL TO atrium_app USING (%s) WITH CHECK (%s)',
                   relation, inside, inside);
    IF mine IS NOT NULL THEN
        mine := format('(%s IS NULL AND %s)', org_id, mine);
        EXECUTE format('CREATE POLICY mine ON %s FOR SELECT TO atrium_app USING (%s)', relation, mine);
        visible := format('(%s) OR %s', inside, mine);
    END IF;
    -- Permissive policies add up: a second one, added by accident, would open the table. A restrictive one cannot be
    -- widened by any number of permissive ones.
    EXECUTE format('CREATE POLICY guard ON %s AS RESTRICTIVE FOR ALL TO atrium_app USING (%s) WITH CHECK (%s)',
                   relation, visible, inside);
END
$$;
REVOKE ALL ON PROCEDURE wall_by_org FROM PUBLIC;

-- The same wall around what belongs to one user rather than to one organization.
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

-- Guests are numbered; nothing personal is stored. Gaps in the numbers are normal (a rolled-back sign-in).
CREATE SEQUENCE guest_number;

CREATE TABLE users (
    id         uuid        CONSTRAINT users_pkey PRIMARY KEY,
    -- What others see: guest-0042. Four digits at least; lpad() would also cut to four, and give the 10,000th guest
    -- the 1,000th's name.
    name       text        NOT NULL
                           DEFAULT 'guest-' || regexp_replace('000' || nextval('guest_number'), '^0+(?=[0-9]{4})', '')
                           CONSTRAINT users_name_unique UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);
CALL wall_by_user('users', 'id');
GRANT SELECT, INSERT (id) ON users TO atrium_app;
GRANT USAGE ON SEQUENCE guest_number TO atrium_app;

-- A sign-in session that ended before its access tokens expired; they carry its id as `sid`. Written by its own user;
-- read across users by the watcher, which every API process polls, so that a sign-out takes effect without Redis.
CREATE TABLE revoked_auth_sessions (
    auth_session_id uuid        CONSTRAINT revoked_auth_sessions_pkey PRIMARY KEY,
    user_id         uuid        NOT NULL CONSTRAINT revoked_auth_sessions_user_fkey REFERENCES users (id),
    -- After this time its tokens have expired, and the row may be deleted.
    expires_at      timestamptz NOT NULL,
    revoked_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX revoked_auth_sessions_revoked_at ON revoked_auth_sessions (revoked_at);
CALL wall_by_user('revoked_auth_sessions', 'user_id');
GRANT SELECT, INSERT (auth_session_id, user_id, expires_at) ON revoked_auth_sessions TO atrium_app;

CREATE POLICY watch ON revoked_auth_sessions FOR SELECT TO atrium_watcher USING (true);
CREATE POLICY expire ON revoked_auth_sessions FOR DELETE TO atrium_watcher USING (expires_at < now());
GRANT SELECT, DELETE ON revoked_auth_sessions TO atrium_watcher;

-- The answer to a create that carried an Idempotency-Key, stored in the transaction that did the work: a
-- repetition finds either the whole effect and its answer, or nothing.
CREATE TABLE idempotency_keys (
    -- The caller: a user, or an API key, which acts under its own name. Hence no foreign key.
    caller_id   uuid        NOT NULL,
    -- Method and path, so that one key on two resources is two keys.
    route       text        NOT NULL,
    key         text        NOT NULL CONSTRAINT idempotency_keys_key_length CHECK (length(key) BETWEEN 1 AND 255),
    -- SHA-256 of the request body: the same key with another body is an error of the client.
    fingerprint bytea       NOT NULL,
    status      smallint    NOT NULL,
    headers     jsonb       NOT NULL,
    body        jsonb       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (caller_id, route, key)
);
CALL wall_by_user('idempotency_keys', 'caller_id');
-- Deleted by their own caller's next create, once they are a day old.
GRANT SELECT, INSERT, DELETE ON idempotency_keys TO atrium_app;
