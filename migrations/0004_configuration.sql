-- Configuration: one monotonic revision per organization, assigned under the lock of its head row, so that revisions
-- commit in order. The platform's own organization contains the defaults of all others.

CREATE TABLE config_heads (
    org_id     uuid        CONSTRAINT config_heads_pkey PRIMARY KEY
                           CONSTRAINT config_heads_org_fkey REFERENCES orgs (id) ON DELETE CASCADE,
    revision   bigint      NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO config_heads (org_id, revision) VALUES ('00000000-0000-0000-0000-000000000000', 0);
CALL wall_by_org('config_heads');
GRANT SELECT, INSERT (org_id, revision), UPDATE (revision, changed_at), DELETE ON config_heads TO atrium_app;
-- Every process compares its cached revisions with these, across tenants. It reads numbers only, never values.
CREATE POLICY watch ON config_heads FOR SELECT TO atrium_watcher USING (true);
GRANT SELECT (org_id, revision) ON config_heads TO atrium_watcher;

CREATE TABLE config_values (
    org_id     uuid   NOT NULL CONSTRAINT config_values_org_fkey REFERENCES orgs (id) ON DELETE CASCADE,
    -- Null: set for the organization (in the platform's own, for all organizations).
    project_id uuid,
    key        text   NOT NULL,
    value      jsonb  NOT NULL,
    -- The revision that set it.
    revision   bigint NOT NULL,
    CONSTRAINT config_values_unique UNIQUE NULLS NOT DISTINCT (org_id, project_id, key),
    CONSTRAINT config_values_project_fkey FOREIGN KEY (org_id, project_id) REFERENCES projects (org_id, id) ON DELETE CASCADE
);
CALL wall_by_org('config_values');
GRANT SELECT, INSERT, UPDATE (value, revision), DELETE ON config_values TO atrium_app;

-- All changes, with the old and new value, author and reason. Rows are never updated or deleted.
CREATE TABLE config_history (
    org_id      uuid        NOT NULL CONSTRAINT config_history_org_fkey REFERENCES orgs (id) ON DELETE CASCADE,
    revision    bigint      NOT NULL,
    key         text        NOT NULL,
    -- Not a foreign key: history outlives the project.
    project_id  uuid,
    action      text        NOT NULL CONSTRAINT config_history_action_known CHECK (action IN ('set', 'unset')),
    old_value   jsonb,
    new_value   jsonb,
    -- Null: an operator, through atrium-ctl.
    author_id   uuid        CONSTRAINT config_history_author_fkey REFERENCES users (id),
    author_name text,
    reason      text        NOT NULL CONSTRAINT config_history_reason_length CHECK (length(reason) BETWEEN 1 AND 500),
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT config_history_pkey PRIMARY KEY (org_id, revision),
    CONSTRAINT config_history_new_value CHECK ((action = 'set') = (new_value IS NOT NULL))
);
CREATE INDEX config_history_key ON config_history (org_id, key, revision DESC);
CALL wall_by_org('config_history');
GRANT SELECT, INSERT (org_id, revision, key, project_id, action, old_value, new_value, author_id, author_name, reason)
    ON config_history TO atrium_app;
