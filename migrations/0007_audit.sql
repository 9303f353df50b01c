-- The audit log: who changed what in an organization, in one order, which nobody can rewrite unnoticed.
--
-- The application may add entries and read them, no more. Number, time and hash are the database's: an entry's hash
-- covers its content and the hash before it, so that whoever changes, removes or inserts one, with whatever rights,
-- has to change every later one, up to those that were noted down elsewhere (an export, the verifying command's
-- last line).

CREATE TABLE audit_log (
    org_id      uuid        NOT NULL CONSTRAINT audit_log_org_fkey REFERENCES orgs (id) ON DELETE CASCADE,
    -- 1, 2, 3 … without gaps.
    seq         bigint      NOT NULL,
    at          timestamptz NOT NULL,
    actor_kind  text        NOT NULL CONSTRAINT audit_log_actor_kind_known
                            CHECK (actor_kind IN ('user', 'api_key', 'operator', 'system')),
    -- Not a foreign key: the log outlives whom it is about. Null: the operator, or Atrium itself.
    actor_id    uuid,
    actor_name  text        NOT NULL,
    -- What was done, such as project.created.
    action      text        NOT NULL,
    -- To what.
    target_kind text        NOT NULL,
    target_id   text        NOT NULL,
    -- What it was and what it became, as far as it is no secret.
    before      jsonb,
    after       jsonb,
    hash        bytea       NOT NULL CONSTRAINT audit_log_hash_length CHECK (length(hash) = 32),
    CONSTRAINT audit_log_pkey PRIMARY KEY (org_id, seq)
);
CALL wall_by_org('audit_log');
GRANT SELECT, INSERT (org_id, actor_kind, actor_id, actor_name, action, target_kind, target_id, before, after)
    ON audit_log TO atrium_app;

-- Chains a new entry to the last one. The lock lets one transaction of an organization go after the other, from its
-- first entry to its end; the statement after it sees what the one before has added. So that no two transactions
-- can wait for each other in a circle, entries are added last.
CREATE FUNCTION chain_audit_entry() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last_hash bytea;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('audit_log ' || NEW.org_id, 0));
    SELECT seq + 1, hash INTO NEW.seq, last_hash
      FROM audit_log WHERE org_id = NEW.org_id ORDER BY seq DESC LIMIT 1;
    NEW.seq := COALESCE(NEW.seq, 1);
    NEW.at := clock_timestamp();
    -- An array's elements cannot be shifted into each other; jsonb has one text for one value.
    NEW.hash := sha256(COALESCE(last_hash, '') || convert_to(jsonb_build_array(
        NEW.org_id, NEW.seq, NEW.at AT TIME ZONE 'UTC', NEW.actor_kind, NEW.actor_id, NEW.actor_name,
        NEW.action, NEW.target_kind, NEW.target_id, NEW.before, NEW.after)::text, 'UTF8'));
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION chain_audit_entry FROM PUBLIC;
CREATE TRIGGER chain BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION chain_audit_entry();

-- Nobody has the right to rewrite it; who could take that right is stopped once more. Rows go with their
-- organization, and only so: to a DELETE of its own, the forced wall shows even the owner nothing.
CREATE FUNCTION refuse_audit_rewrite() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log cannot be rewritten' USING ERRCODE = 'insufficient_privilege';
END
$$;
REVOKE ALL ON FUNCTION refuse_audit_rewrite FROM PUBLIC;
CREATE TRIGGER append_only BEFORE UPDATE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_rewrite();
