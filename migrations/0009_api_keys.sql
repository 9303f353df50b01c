-- Keys with which services call the API on behalf of an organization.
--
-- A key names its organization and itself, and proves itself with a secret: it is found behind the wall of the
-- organization it names.

CREATE TABLE api_keys (
    org_id       uuid        NOT NULL CONSTRAINT api_keys_org_fkey REFERENCES orgs (id) ON DELETE CASCADE,
    id           uuid        NOT NULL,
    name         text        NOT NULL CONSTRAINT api_keys_name_length CHECK (length(name) BETWEEN 1 AND 80),
    -- SHA-256 of the secret: a reader of this table has no key.
    hash         bytea       NOT NULL CONSTRAINT api_keys_hash_length CHECK (length(hash) = 32),
    -- What it may be used for; the list is `shared/src/api_key.rs`.
    scopes       text[]      NOT NULL CONSTRAINT api_keys_scopes_some CHECK (cardinality(scopes) BETWEEN 1 AND 20),
    -- The key is the organization's: it stays when its maker leaves.
    created_by   uuid        NOT NULL CONSTRAINT api_keys_created_by_fkey REFERENCES users (id),
    created_at   timestamptz NOT NULL DEFAULT now(),
    -- Null: until it is revoked.
    expires_at   timestamptz,
    -- To the minute.
    last_used_at timestamptz,
    revoked_at   timestamptz,
    CONSTRAINT api_keys_pkey PRIMARY KEY (org_id, id)
);
CALL wall_by_org('api_keys');
GRANT SELECT, INSERT (org_id, id, name, hash, scopes, created_by, expires_at), UPDATE (last_used_at, revoked_at)
    ON api_keys TO atrium_app;
