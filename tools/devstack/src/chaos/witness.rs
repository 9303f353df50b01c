//! Triggers of the runner's own, which see every effect as it is committed and are no part of the product: what
//! happened twice shows here even where the second time left no trace.

use sqlx::PgConnection;

/// What the triggers write has no constraints: they must never be the reason why something fails.
const WITNESS: &str = "
    CREATE SCHEMA chaos;
    CREATE TABLE chaos.consumed (org_id uuid, outbox_id bigint, topic text, at timestamptz DEFAULT clock_timestamp());
    CREATE TABLE chaos.ended (org_id uuid, saga_id uuid, kind text, status text, at timestamptz DEFAULT clock_timestamp());
    CREATE TABLE chaos.stepped (org_id uuid, saga_id uuid, step text, effect text,
                                at timestamptz DEFAULT clock_timestamp());
    CREATE TABLE chaos.dead (org_id uuid, outbox_id bigint, reason text, at timestamptz DEFAULT clock_timestamp());

    CREATE FUNCTION chaos.see_outbox() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        IF NEW.consumed_at IS DISTINCT FROM OLD.consumed_at THEN
            INSERT INTO chaos.consumed VALUES (NEW.org_id, NEW.id, NEW.topic);
        END IF;
        IF NEW.dead_at IS NOT NULL AND OLD.dead_at IS NULL THEN
            INSERT INTO chaos.dead VALUES (NEW.org_id, NEW.id, NEW.dead_reason);
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER witness AFTER UPDATE ON outbox FOR EACH ROW EXECUTE FUNCTION chaos.see_outbox();

    CREATE FUNCTION chaos.see_saga() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        IF NEW.status IN ('COMMITTED', 'FAILED') THEN
            INSERT INTO chaos.ended VALUES (NEW.org_id, NEW.id, NEW.kind, NEW.status);
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER witness AFTER UPDATE OF status ON sagas FOR EACH ROW EXECUTE FUNCTION chaos.see_saga();

    CREATE FUNCTION chaos.see_step() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        IF NEW.status = 'DONE' AND OLD.status <> 'DONE' THEN
            INSERT INTO chaos.stepped VALUES (NEW.org_id, NEW.saga_id, NEW.name, 'done');
        END IF;
        IF NEW.compensated_at IS DISTINCT FROM OLD.compensated_at THEN
            INSERT INTO chaos.stepped VALUES (NEW.org_id, NEW.saga_id, NEW.name, 'taken back');
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER witness AFTER UPDATE ON saga_steps FOR EACH ROW EXECUTE FUNCTION chaos.see_step();";

pub(super) async fn install(superuser: &mut PgConnection) -> anyhow::Result<()> {
    sqlx::raw_sql(WITNESS).execute(superuser).await?;
    Ok(())
}
