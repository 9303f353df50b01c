//! Observes the database: triggers of the test, not of the product, record every effect as it is committed. What
//! happened twice shows here even where the second time left no trace in the product's own tables.

use sqlx::PgConnection;

/// The tables that the triggers write to have no constraints: an observer must never make a transaction fail.
const TRIGGERS: &str = "
    CREATE SCHEMA chaos;
    CREATE TABLE chaos.consumed (org_id uuid, outbox_id bigint, topic text, at timestamptz DEFAULT clock_timestamp());
    CREATE TABLE chaos.ended (org_id uuid, saga_id uuid, kind text, status text, at timestamptz DEFAULT clock_timestamp());
    CREATE TABLE chaos.stepped (org_id uuid, saga_id uuid, step text, effect text,
                                at timestamptz DEFAULT clock_timestamp());
    CREATE TABLE chaos.dead (org_id uuid, outbox_id bigint, reason text, at timestamptz DEFAULT clock_timestamp());

    CREATE FUNCTION chaos.record_outbox() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        IF NEW.consumed_at IS DISTINCT FROM OLD.consumed_at THEN
            INSERT INTO chaos.consumed VALUES (NEW.org_id, NEW.id, NEW.topic);
        END IF;
        IF NEW.dead_at IS NOT NULL AND OLD.dead_at IS NULL THEN
            INSERT INTO chaos.dead VALUES (NEW.org_id, NEW.id, NEW.dead_reason);
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER observer AFTER UPDATE ON outbox FOR EACH ROW EXECUTE FUNCTION chaos.record_outbox();

    CREATE FUNCTION chaos.record_saga() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        IF NEW.status IN ('COMMITTED', 'FAILED') THEN
            INSERT INTO chaos.ended VALUES (NEW.org_id, NEW.id, NEW.kind, NEW.status);
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER observer AFTER UPDATE OF status ON sagas FOR EACH ROW EXECUTE FUNCTION chaos.record_saga();

    CREATE FUNCTION chaos.record_step() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        IF NEW.status = 'DONE' AND OLD.status <> 'DONE' THEN
            INSERT INTO chaos.stepped VALUES (NEW.org_id, NEW.saga_id, NEW.name, 'done');
        END IF;
        IF NEW.compensated_at IS DISTINCT FROM OLD.compensated_at THEN
            INSERT INTO chaos.stepped VALUES (NEW.org_id, NEW.saga_id, NEW.name, 'compensated');
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER observer AFTER UPDATE ON saga_steps FOR EACH ROW EXECUTE FUNCTION chaos.record_step();";

/// Adds the triggers to a migrated database.
pub(crate) async fn install(superuser: &mut PgConnection) -> anyhow::Result<()> {
    sqlx::raw_sql(TRIGGERS).execute(superuser).await?;
    Ok(())
}
