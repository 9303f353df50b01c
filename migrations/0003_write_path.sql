-- The write path: what must not be lost goes through the outbox, and what must happen once through the inbox.

-- A message, written in the transaction of the change that causes it. The relay publishes it to Redis Streams,
-- a worker consumes it and sets consumed_at *in the transaction of the effect*: that column is the only proof
-- that a message is done. Published but not consumed for a while means published again.
CREATE TABLE outbox (
    org_id       uuid        NOT NULL CONSTRAINT outbox_org_fkey REFERENCES orgs (id) ON DELETE CASCADE,
    -- Order within an aggregate: writers lock the aggregate's row, so its ids commit in order. Across aggregates a
    -- lower id may commit later, so nothing here reads "everything after id n".
    id           bigint      GENERATED ALWAYS AS IDENTITY,
    message_id   uuid        NOT NULL,
    topic        text        NOT NULL CONSTRAINT outbox_topic_known CHECK (topic IN ('saga', 'config', 'chat')),
    -- What the message is about: a saga, an organization, a project. Chooses the shard, and the order to keep.
    aggregate_id uuid        NOT NULL,
    payload      jsonb       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Null: deliver immediately. Otherwise the time of a retry or deadline; only these depend on the clock.
    available_at timestamptz,
    published_at timestamptz,
    consumed_at  timestamptz,
    -- Given up after too many deliveries; a copy is in the dead-letter stream. Cleared to replay.
    dead_at      timestamptz,
    dead_reason  text,
    CONSTRAINT outbox_pkey PRIMARY KEY (org_id, id),
    CONSTRAINT outbox_message_unique UNIQUE (org_id, message_id)
);
CREATE INDEX outbox_due ON outbox (id) WHERE published_at IS NULL AND dead_at IS NULL AND available_at IS NULL;
CREATE INDEX outbox_delayed ON outbox (available_at) WHERE published_at IS NULL AND dead_at IS NULL AND available_at IS NOT NULL;
CREATE INDEX outbox_unconsumed ON outbox (published_at) WHERE published_at IS NOT NULL AND consumed_at IS NULL AND dead_at IS NULL;
CREATE INDEX outbox_consumed ON outbox (consumed_at) WHERE consumed_at IS NOT NULL;
CALL wall_by_org('outbox');
GRANT SELECT, INSERT (org_id, message_id, topic, aggregate_id, payload, available_at),
      UPDATE (consumed_at, dead_at, dead_reason) ON outbox TO atrium_app;
-- The relay and the janitor work across tenants, on this table and nothing else.
CREATE POLICY relay ON outbox FOR ALL TO atrium_relay USING (true) WITH CHECK (true);
GRANT SELECT, UPDATE (published_at), DELETE ON outbox TO atrium_relay;

-- A message that a consumer has taken effect of. Kept longer than the outbox row, so that a late copy is still known.
CREATE TABLE inbox (
    org_id      uuid        NOT NULL CONSTRAINT inbox_org_fkey REFERENCES orgs (id) ON DELETE CASCADE,
    consumer    text        NOT NULL,
    message_id  uuid        NOT NULL,
    consumed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT inbox_pkey PRIMARY KEY (org_id, consumer, message_id)
);
CREATE INDEX inbox_consumed ON inbox (consumed_at);
CALL wall_by_org('inbox');
GRANT SELECT, INSERT (org_id, consumer, message_id) ON inbox TO atrium_app;
CREATE POLICY relay ON inbox FOR ALL TO atrium_relay USING (true) WITH CHECK (true);
GRANT SELECT, DELETE ON inbox TO atrium_relay;

-- A long-running operation: a list of steps that all happen, or are all compensated.
CREATE TABLE sagas (
    org_id      uuid        NOT NULL CONSTRAINT sagas_org_fkey REFERENCES orgs (id) ON DELETE CASCADE,
    id          uuid        NOT NULL,
    kind        text        NOT NULL,
    status      text        NOT NULL DEFAULT 'PENDING'
                CONSTRAINT sagas_status_known CHECK (status IN ('PENDING', 'COMPENSATING', 'COMMITTED', 'FAILED')),
    -- Why it was given up: {"code", "detail"}.
    failure     jsonb,
    created_by  uuid        NOT NULL CONSTRAINT sagas_created_by_fkey REFERENCES users (id),
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    deadline_at timestamptz NOT NULL,
    finished_at timestamptz,
    CONSTRAINT sagas_pkey PRIMARY KEY (org_id, id),
    CONSTRAINT sagas_finished_whole CHECK ((status IN ('COMMITTED', 'FAILED')) = (finished_at IS NOT NULL)),
    CONSTRAINT sagas_failure_explained CHECK ((status IN ('COMPENSATING', 'FAILED')) = (failure IS NOT NULL))
);
-- An operation's address names no organization, with which the primary key begins.
CREATE INDEX sagas_id ON sagas (id);
-- The requester sees an operation without naming its organization, even when a compensation took the membership away.
CALL wall_by_org('sagas',
    mine => '(created_by = (SELECT NULLIF(current_setting(''app.user_id'', true), '''')::uuid)
              OR org_id IN (SELECT members.org_id FROM members))');
GRANT SELECT, INSERT (org_id, id, kind, created_by, deadline_at), UPDATE (status, failure, finished_at)
    ON sagas TO atrium_app;

-- A terminal state is final: the database itself rejects every later change.
CREATE FUNCTION refuse_terminal_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'saga % is already %', OLD.id, OLD.status
        USING ERRCODE = 'check_violation', CONSTRAINT = 'sagas_terminal_is_final';
END
$$;
REVOKE ALL ON FUNCTION refuse_terminal_change FROM PUBLIC;
CREATE TRIGGER terminal_is_final BEFORE UPDATE ON sagas
    FOR EACH ROW WHEN (OLD.status IN ('COMMITTED', 'FAILED')) EXECUTE FUNCTION refuse_terminal_change();

-- The plan is written before the first step runs, so every step's compensation is on record before its action.
CREATE TABLE saga_steps (
    org_id      uuid        NOT NULL,
    saga_id     uuid        NOT NULL,
    position    integer     NOT NULL,
    name        text        NOT NULL,
    status      text        NOT NULL DEFAULT 'PENDING' CONSTRAINT saga_steps_status_known
                CHECK (status IN ('PENDING', 'RUNNING', 'DONE', 'FAILED', 'COMPENSATED')),
    -- Tries of the action.
    attempts    integer     NOT NULL DEFAULT 0,
    started_at  timestamptz,
    finished_at timestamptz,
    -- A message for the waiting user; null without one.
    detail      text,
    -- Tries of the compensation, and when it worked. A step that FAILED stays so, and is compensated all the same:
    -- it may have been done in part.
    compensation_attempts integer NOT NULL DEFAULT 0,
    compensated_at        timestamptz,
    CONSTRAINT saga_steps_pkey PRIMARY KEY (org_id, saga_id, position),
    CONSTRAINT saga_steps_name_unique UNIQUE (org_id, saga_id, name),
    CONSTRAINT saga_steps_saga_fkey FOREIGN KEY (org_id, saga_id) REFERENCES sagas (org_id, id) ON DELETE CASCADE
);
CALL wall_by_org('saga_steps');
GRANT SELECT, INSERT (org_id, saga_id, position, name),
      UPDATE (status, attempts, started_at, finished_at, detail, compensation_attempts, compensated_at)
    ON saga_steps TO atrium_app;

-- What happened to a saga, in order: the source of its event stream, which therefore loses nothing without Redis.
CREATE TABLE saga_events (
    org_id  uuid        NOT NULL,
    saga_id uuid        NOT NULL,
    -- 1, 2, 3 … without gaps, taken under the saga's row lock; the event stream's id.
    seq     bigint      NOT NULL,
    -- The step, or null for the saga's own end.
    step    text,
    status  text        NOT NULL,
    detail  text,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT saga_events_pkey PRIMARY KEY (org_id, saga_id, seq),
    CONSTRAINT saga_events_saga_fkey FOREIGN KEY (org_id, saga_id) REFERENCES sagas (org_id, id) ON DELETE CASCADE
);
CALL wall_by_org('saga_events');
GRANT SELECT, INSERT (org_id, saga_id, seq, step, status, detail) ON saga_events TO atrium_app;
