-- The statuses of an organization after its creation: suspended, being deleted, purged; and revocations of access.

ALTER TABLE orgs
    DROP CONSTRAINT orgs_status_known,
    ADD CONSTRAINT orgs_status_known
        CHECK (status IN ('PENDING', 'COMMITTED', 'FAILED', 'SUSPENDED', 'DELETING')),
    -- Who suspended it. An owner cannot resume what an operator suspended. Kept while it is being deleted, so that a
    -- canceled deletion restores the former status.
    ADD COLUMN suspended_by text
        CONSTRAINT orgs_suspended_by_known CHECK (suspended_by IN ('owner', 'operator')),
    -- The saga that deletes it, and when the saga may purge. Until then the deletion can be canceled.
    ADD COLUMN deletion_id uuid,
    ADD COLUMN delete_at timestamptz,
    ADD CONSTRAINT orgs_suspended_whole CHECK (status <> 'SUSPENDED' OR suspended_by IS NOT NULL),
    ADD CONSTRAINT orgs_deleting_whole
        CHECK ((status = 'DELETING') = (delete_at IS NOT NULL) AND (delete_at IS NULL) = (deletion_id IS NULL));
GRANT UPDATE (suspended_by, deletion_id, delete_at), DELETE ON orgs TO atrium_app;

-- Deleting the row deletes all data of the organization, by cascade. Only the last step of the purge does this. The
-- trigger rejects the deletion before the end of the grace period, for every caller.
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

-- The certificates of purged organizations: records that nothing else remains. A certificate belongs to the user who
-- requested the deletion.
CREATE TABLE deletion_certificates (
    user_id        uuid        NOT NULL CONSTRAINT deletion_certificates_user_fkey REFERENCES users (id),
    -- The saga's id.
    id             uuid        NOT NULL,
    -- Not a foreign key, because the organization's row is deleted.
    deleted_org_id uuid        NOT NULL,
    requested_at   timestamptz NOT NULL,
    purged_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- What was removed, and what a search found afterwards.
    certificate    jsonb       NOT NULL,
    CONSTRAINT deletion_certificates_pkey PRIMARY KEY (user_id, id)
);
CALL wall_by_user('deletion_certificates', 'user_id');
GRANT SELECT, INSERT (user_id, id, deleted_org_id, requested_at, certificate) ON deletion_certificates TO atrium_app;

-- Revocations of access. Every API process polls them and updates its caches and open streams, so that access ends
-- within a second, without Redis.
CREATE TABLE revoked_access (
    org_id       uuid        NOT NULL CONSTRAINT revoked_access_org_fkey REFERENCES orgs (id) ON DELETE CASCADE,
    id           uuid        NOT NULL DEFAULT gen_random_uuid(),
    -- A user's id or an API key's. Null: all of them.
    principal_id uuid,
    -- One project. Null: the whole organization.
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

-- A recorded response names its organization and is deleted with it.
ALTER TABLE idempotency_keys
    ADD COLUMN org_id uuid CONSTRAINT idempotency_keys_org_fkey REFERENCES orgs (id) ON DELETE CASCADE;
CREATE INDEX idempotency_keys_org ON idempotency_keys (org_id);
-- Only the transaction's own organization: the foreign key would reveal whether any other organization exists.
CREATE POLICY in_its_org ON idempotency_keys AS RESTRICTIVE FOR INSERT TO atrium_app
    WITH CHECK (org_id IS NULL OR org_id = (SELECT NULLIF(current_setting('app.org_id', true), '')::uuid));
