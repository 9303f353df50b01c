-- An imported organization has configuration and history while it is still PENDING. If its creation fails, they must be
-- deleted, although no role may delete history. They are deleted by cascade from the head, and a head can be deleted
-- only while its organization is PENDING, or together with the organization.

ALTER TABLE config_values
    ADD CONSTRAINT config_values_head_fkey FOREIGN KEY (org_id) REFERENCES config_heads (org_id) ON DELETE CASCADE;
ALTER TABLE config_history
    ADD CONSTRAINT config_history_head_fkey FOREIGN KEY (org_id) REFERENCES config_heads (org_id) ON DELETE CASCADE;

CREATE FUNCTION refuse_configuration_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM orgs WHERE id = OLD.org_id AND status <> 'PENDING') THEN
        RAISE EXCEPTION 'the configuration of organization % is in use', OLD.org_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'config_heads_deleted_while_pending';
    END IF;
    RETURN OLD;
END
$$;
REVOKE ALL ON FUNCTION refuse_configuration_deletion FROM PUBLIC;
CREATE TRIGGER deleted_while_pending BEFORE DELETE ON config_heads
    FOR EACH ROW EXECUTE FUNCTION refuse_configuration_deletion();
