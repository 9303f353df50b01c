-- The life of an organization after its creation: suspended, in deletion, purged; and the access that ends on the way.

ALTER TABLE orgs
    DROP CONSTRAINT orgs_status_known,
    ADD CONSTRAINT orgs_status_known
        CHECK (status IN ('PENDING', 'COMMITTED', 'FAILED', 'SUSPENDED', 'DELETING')),
    -- Who suspended it. An owner cannot resume an operator's suspension. Kept during a deletion, so that canceling it
    -- restores the former state.
    ADD COLUMN suspended_by text
        CONSTRAINT orgs_suspended_by_known CHECK (suspended_by IN ('owner', 'operator')),
    -- The saga that deletes it, and from when on that may purge. Until then the deletion can be canceled.
    ADD COLUMN deletion_id uuid,
    ADD COLUMN delete_at timestamptz,
    ADD CONSTRAINT orgs_suspended_whole CHECK (status <> 'SUSPENDED' OR suspended_by IS NOT NULL),
    ADD CONSTRAINT orgs_deleting_whole
        CHECK ((status = 'DELETING') = (delete_at IS NOT NULL) AND (delete_at IS NULL) = (deletion_id IS NULL));
GRANT UPDATE (suspended_by, deletion_id, delete_at), DELETE ON orgs TO atrium_app;

-- Deleting the row deletes everything of the organization. Only the purge does that, as its last step, and only after
-- the grace period.
CREATE FUNCTION refuse_early_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'organization % is not at the end of its grace', OLD.id
        USING ERRCODE = 'check_violation', CONSTRAINT = 'orgs_deleted_after_grace';
END
$$;
REVOKE ALL ON FUNCTION refuse_early_deletion FROM PUBLIC;
CREATE TRIGGER deleted_after_grace BEFORE DELETE ON orgs
    FOR EACH ROW WHEN (OLD.status <> 'DELETING' OR OLD.delete_at > clock_timestamp())
    EXECUTE FUNCTION refuse_early_deletion();

-- What remains of a deleted organization: the proof that all its data was removed. It belongs to the user who requested
-- the deletion.
CREATE TABLE deletion_certificates (
    user_id        uuid        NOT NULL CONSTRAINT deletion_certificates_user_fkey REFERENCES users (id),
    -- The saga's.
    id             uuid        NOT NULL,
    -- Not a foreign key: there is nothing left to refer to.
    deleted_org_id uuid        NOT NULL,
    requested_at   timestamptz NOT NULL,
    purged_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- What was removed, and what a search found afterwards.
    certificate    jsonb       NOT NULL,
    CONSTRAINT deletion_certificates_pkey PRIMARY KEY (user_id, id)
);
CALL wall_by_user('deletion_certificates', 'user_id');
GRANT SELECT, INSERT (user_id, id, deleted_org_id, requested_at, certificate) ON deletion_certificates TO atrium_app;

-- An end of access, for processes that cache memberships and for open streams: every API process polls for them, so
-- that streams end within a second, without Redis.
CREATE TABLE revoked_access (
    org_id       uuid        NOT NULL CONSTRAINT revoked_access_org_fkey REFERENCES orgs (id) ON DELETE CASCADE,
    id           uuid        NOT NULL DEFAULT gen_random_uuid(),
    -- The principal: a user or an API key. Null: all of them.
    principal_id uuid,
    -- To what: one project. Null: all of the organization.
    project_id   uuid,
    revoked_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT revoked_access_pkey PRIMARY KEY (org_id, id)
);
CREATE INDEX revoked_access_revoked_at ON revoked_access (revoked_at);
CALL wall_by_org('revoked_access');
GRANT SELECT, INSERT (org_id, principal_id, project_id) ON revoked_access TO atrium_app;
CREATE POLICY watch ON revoked_access FOR SELECT TO atrium_watcher USING (true);
CREATE POLICY expire ON revoked_access FOR DELETE TO atrium_watcher USING (revoked_at < now() - interval '1 hour');
GRANT SELECT, DELETE ON revoked_access TO atrium_watcher;

-- A recorded answer names the organization it is about, and goes with it.
ALTER TABLE idempotency_keys
    ADD COLUMN org_id uuid CONSTRAINT idempotency_keys_org_fkey REFERENCES orgs (id) ON DELETE CASCADE;
CREATE INDEX idempotency_keys_org ON idempotency_keys (org_id);
-- Only the transaction's own organization: the key would reveal whether another one exists.
CREATE POLICY in_its_org ON idempotency_keys AS RESTRICTIVE FOR INSERT TO atrium_app
    WITH CHECK (org_id IS NULL OR org_id = (SELECT NULLIF(current_setting('app.org_id', true), '')::uuid));
