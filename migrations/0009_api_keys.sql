-- API keys, with which services act in an organization.
--
-- A key contains its organization's id, its own id and a secret that authenticates it. It is looked up in a transaction
-- of that organization, inside the tenant wall.

CREATE TABLE api_keys (
    org_id       uuid        NOT NULL CONSTRAINT api_keys_org_fkey REFERENCES orgs (id) ON DELETE CASCADE,
    id           uuid        NOT NULL,
    name         text        NOT NULL CONSTRAINT api_keys_name_length CHECK (length(name) BETWEEN 1 AND 80),
    -- SHA-256 of the secret, so that read access to this table yields no usable key.
    hash         bytea       NOT NULL CONSTRAINT api_keys_hash_length CHECK (length(hash) = 32),
    -- The key's scopes; `shared/src/api_key.rs` lists them.
    scopes       text[]      NOT NULL CONSTRAINT api_keys_scopes_some CHECK (cardinality(scopes) BETWEEN 1 AND 20),
    -- The key belongs to the organization and remains valid when its creator is no longer a member.
    created_by   uuid        NOT NULL CONSTRAINT api_keys_created_by_fkey REFERENCES users (id),
    created_at   timestamptz NOT NULL DEFAULT now(),
    -- Null: valid until it is revoked.
    expires_at   timestamptz,
    -- Accurate to the minute.
    last_used_at timestamptz,
    revoked_at   timestamptz,
    CONSTRAINT api_keys_pkey PRIMARY KEY (org_id, id)
);
CALL wall_by_org('api_keys');
GRANT SELECT, INSERT (org_id, id, name, hash, scopes, created_by, expires_at), UPDATE (last_used_at, revoked_at)
    ON api_keys TO atrium_app;
