-- Organizations, their members, invitations and projects.
--
-- Primary keys and foreign keys are composite, (org_id, id): with a single-column foreign key, organization A could
-- attach its rows to B's project, and a cascade of A could delete B's rows. Status columns are text with a CHECK,
-- because an enum's operators are not leakproof and could not be index conditions under row-level security.

CREATE TABLE orgs (
    id         uuid        CONSTRAINT orgs_pkey PRIMARY KEY,
    name       text        NOT NULL CONSTRAINT orgs_name_length CHECK (length(name) BETWEEN 1 AND 80),
    -- Readable name for URLs and namespaces. Its random suffix hides whether another organization has the same name.
    slug       text        NOT NULL,
    status     text        NOT NULL CONSTRAINT orgs_status_known CHECK (status IN ('PENDING', 'COMMITTED', 'FAILED')),
    -- Incremented by every update; the ETag.
    version    bigint      NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- The platform itself, as an organization without members: it owns the default configuration. Inserted before the wall
-- is created, because after that even the owner cannot insert it.
INSERT INTO orgs (id, name, slug, status)
VALUES ('00000000-0000-0000-0000-000000000000', 'Atrium', 'platform', 'COMMITTED');

CREATE TABLE org_slugs (
    slug   text CONSTRAINT org_slugs_pkey PRIMARY KEY,
    org_id uuid NOT NULL CONSTRAINT org_slugs_org_unique UNIQUE
                         CONSTRAINT org_slugs_org_fkey REFERENCES orgs (id) ON DELETE CASCADE
);
CALL wall_by_org('org_slugs');
GRANT SELECT, INSERT, DELETE ON org_slugs TO atrium_app;

CREATE TABLE members (
    org_id    uuid        NOT NULL CONSTRAINT members_org_fkey REFERENCES orgs (id) ON DELETE CASCADE,
    user_id   uuid        NOT NULL CONSTRAINT members_user_fkey REFERENCES users (id),
    -- A copy of users.name, so that a list of members needs no query across the wall of users.
    user_name text        NOT NULL,
    role      text        NOT NULL CONSTRAINT members_role_known CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    joined_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT members_pkey PRIMARY KEY (org_id, user_id)
);
CREATE INDEX members_user ON members (user_id);
CALL wall_by_org('members',
    mine => 'user_id = (SELECT NULLIF(current_setting(''app.user_id'', true), '''')::uuid)');
GRANT SELECT, INSERT, DELETE, UPDATE (role) ON members TO atrium_app;

-- The inner SELECT is subject to the wall of members, which here shows the user's own memberships only.
CALL wall_by_org('orgs', 'id', mine => 'id IN (SELECT members.org_id FROM members)');
GRANT SELECT, INSERT (id, name, slug, status), UPDATE (name, status, version, updated_at) ON orgs TO atrium_app;

CREATE TABLE invitations (
    org_id      uuid        NOT NULL CONSTRAINT invitations_org_fkey REFERENCES orgs (id) ON DELETE CASCADE,
    id          uuid        NOT NULL,
    -- SHA-256 of the secret half of the code, so that read access to this table is not enough to join.
    code_hash   bytea       NOT NULL,
    role        text        NOT NULL
                CONSTRAINT invitations_role_known CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    created_by  uuid        NOT NULL CONSTRAINT invitations_created_by_fkey REFERENCES users (id),
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    accepted_by uuid        CONSTRAINT invitations_accepted_by_fkey REFERENCES users (id),
    accepted_at timestamptz,
    revoked_at  timestamptz,
    CONSTRAINT invitations_pkey PRIMARY KEY (org_id, id),
    CONSTRAINT invitations_code_unique UNIQUE (org_id, code_hash),
    -- An invitation is accepted at most once, and not both accepted and revoked.
    CONSTRAINT invitations_one_end CHECK (accepted_at IS NULL OR revoked_at IS NULL),
    CONSTRAINT invitations_accepted_whole CHECK ((accepted_at IS NULL) = (accepted_by IS NULL))
);
CALL wall_by_org('invitations');
GRANT SELECT, INSERT, UPDATE (accepted_by, accepted_at, revoked_at) ON invitations TO atrium_app;

CREATE TABLE projects (
    org_id     uuid        NOT NULL CONSTRAINT projects_org_fkey REFERENCES orgs (id) ON DELETE CASCADE,
    id         uuid        NOT NULL,
    name       text        NOT NULL CONSTRAINT projects_name_length CHECK (length(name) BETWEEN 1 AND 80),
    version    bigint      NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT projects_pkey PRIMARY KEY (org_id, id)
);
CALL wall_by_org('projects');
GRANT SELECT, INSERT (org_id, id, name), UPDATE (name, version, updated_at), DELETE ON projects TO atrium_app;
