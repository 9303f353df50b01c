-- The audit log: all changes in an organization with their actors, in one order that cannot be rewritten unnoticed.
--
-- The application may only insert and read entries. The database sets number, time and hash. An entry's hash covers its
-- content and the previous hash, so changing, removing or inserting an entry, with any rights, requires changing all
-- later ones, including hashes that were copied elsewhere (an export, the last line of the verifying command).

CREATE TABLE audit_log (
    org_id      uuid        NOT NULL CONSTRAINT audit_log_org_fkey REFERENCES orgs (id) ON DELETE CASCADE,
    -- 1, 2, 3 … without gaps.
    seq         bigint      NOT NULL,
    at          timestamptz NOT NULL,
    actor_kind  text        NOT NULL CONSTRAINT audit_log_actor_kind_known
                            CHECK (actor_kind IN ('user', 'api_key', 'operator', 'system')),
    -- Not a foreign key, because entries outlive their actors. Null: an operator, or Atrium itself.
    actor_id    uuid,
    actor_name  text        NOT NULL,
    -- Such as project.created.
    action      text        NOT NULL,
    -- The changed object.
    target_kind text        NOT NULL,
    target_id   text        NOT NULL,
    -- The state before and after the change, without secrets.
    before      jsonb,
    after       jsonb,
    hash        bytea       NOT NULL CONSTRAINT audit_log_hash_length CHECK (length(hash) = 32),
    CONSTRAINT audit_log_pkey PRIMARY KEY (org_id, seq)
);
CALL wall_by_org('audit_log');
GRANT SELECT, INSERT (org_id, actor_kind, actor_id, actor_name, action, target_kind, target_id, before, after)
    ON audit_log TO atrium_app;

-- Chains a new entry to the last one. The lock serializes the transactions of an organization from their first entry to
-- their end, so the SELECT after it sees the entries of the previous transaction. Entries are inserted last, so that
-- transactions cannot deadlock on this lock.
CREATE FUNCTION chain_audit_entry() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last_hash bytea;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('audit_log ' || NEW.org_id, 0));
    SELECT seq + 1, hash INTO NEW.seq, last_hash
      FROM audit_log WHERE org_id = NEW.org_id ORDER BY seq DESC LIMIT 1;
    NEW.seq := COALESCE(NEW.seq, 1);
    NEW.at := clock_timestamp();
    -- An array keeps the fields separate, and jsonb has one text form for each value.
    NEW.hash := sha256(COALESCE(last_hash, '') || convert_to(jsonb_build_array(
        NEW.org_id, NEW.seq, NEW.at AT TIME ZONE 'UTC', NEW.actor_kind, NEW.actor_id, NEW.actor_name,
        NEW.action, NEW.target_kind, NEW.target_id, NEW.before, NEW.after)::text, 'UTF8'));
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION chain_audit_entry FROM PUBLIC;
CREATE TRIGGER chain BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION chain_audit_entry();

-- No role has the right to rewrite the log; the trigger also stops roles that could grant it to themselves. Rows are
-- deleted only with their organization, by its cascade: the forced wall hides all rows even from a DELETE of the owner.
CREATE FUNCTION refuse_audit_rewrite() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log cannot be rewritten' USING ERRCODE = 'insufficient_privilege';
END
$$;
REVOKE ALL ON FUNCTION refuse_audit_rewrite FROM PUBLIC;
CREATE TRIGGER append_only BEFORE UPDATE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_rewrite();
