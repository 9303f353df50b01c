-- The write path: the outbox ensures that no message is lost, the inbox that each message takes effect once.

-- Messages, each written in the transaction of the change that causes it. The relay publishes a message to Redis
-- Streams; a worker consumes it and sets consumed_at *in the transaction of the effect*. Only this column proves that a
-- message is done. A message that is published but not consumed for some time may be published again.
CREATE TABLE outbox (
    org_id       uuid        NOT NULL CONSTRAINT outbox_org_fkey REFERENCES orgs (id) ON DELETE CASCADE,
    -- Order within an aggregate: writers hold the aggregate's row lock, so its ids commit in order. Across
    -- aggregates a lower id may commit later, so no query reads "everything after id n".
    id           bigint      GENERATED ALWAYS AS IDENTITY,
    message_id   uuid        NOT NULL,
    topic        text        NOT NULL CONSTRAINT outbox_topic_known CHECK (topic IN ('saga', 'config', 'chat')),
    -- The entity that the message is about: a saga, an organization, a project. Determines the shard; messages of one
    -- aggregate keep their order.
    aggregate_id uuid        NOT NULL,
    payload      jsonb       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When a retry or a deadline is due. Null: immediately, independent of the clock.
    available_at timestamptz,
    published_at timestamptz,
    consumed_at  timestamptz,
    -- Set after too many deliveries; a copy is in the dead-letter stream. A replay clears it.
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
-- atrium_relay, the role of the relay and the janitor, has cross-tenant access to this table and the inbox only.
CREATE POLICY relay ON outbox FOR ALL TO atrium_relay USING (true) WITH CHECK (true);
GRANT SELECT, UPDATE (published_at), DELETE ON outbox TO atrium_relay;

-- Messages that have taken effect, by consumer. Kept longer than the outbox rows, so that late copies are recognized.
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

-- Sagas: sequences of steps that either all take effect or are all compensated.
CREATE TABLE sagas (
    org_id      uuid        NOT NULL CONSTRAINT sagas_org_fkey REFERENCES orgs (id) ON DELETE CASCADE,
    id          uuid        NOT NULL,
    kind        text        NOT NULL,
    status      text        NOT NULL DEFAULT 'PENDING'
                CONSTRAINT sagas_status_known CHECK (status IN ('PENDING', 'COMPENSATING', 'COMMITTED', 'FAILED')),
    -- Why it is compensated: {"code", "detail"}.
    failure     jsonb,
    created_by  uuid        NOT NULL CONSTRAINT sagas_created_by_fkey REFERENCES users (id),
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    deadline_at timestamptz NOT NULL,
    finished_at timestamptz,
    CONSTRAINT sagas_pkey PRIMARY KEY (org_id, id),
    CONSTRAINT sagas_finished_whole CHECK ((status IN ('COMMITTED', 'FAILED')) = (finished_at IS NOT NULL)),
    CONSTRAINT sagas_failure_explained CHECK ((status IN ('COMPENSATING', 'FAILED')) = (failure IS NOT NULL))
);
-- An operation's URL does not contain the organization, the first column of the primary key.
CREATE INDEX sagas_id ON sagas (id);
-- The requester can read an operation without naming its organization, even if a compensation deleted the membership.
CALL wall_by_org('sagas',
    mine => '(created_by = (SELECT NULLIF(current_setting(''app.user_id'', true), '''')::uuid)
              OR org_id IN (SELECT members.org_id FROM members))');
GRANT SELECT, INSERT (org_id, id, kind, created_by, deadline_at), UPDATE (status, failure, finished_at)
    ON sagas TO atrium_app;

-- The statuses COMMITTED and FAILED are final: the database rejects every later update.
CREATE FUNCTION refuse_terminal_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'saga % is already %', OLD.id, OLD.status
        USING ERRCODE = 'check_violation', CONSTRAINT = 'sagas_terminal_is_final';
END
$$;
REVOKE ALL ON FUNCTION refuse_terminal_change FROM PUBLIC;
CREATE TRIGGER terminal_is_final BEFORE UPDATE ON sagas
    FOR EACH ROW WHEN (OLD.status IN ('COMMITTED', 'FAILED')) EXECUTE FUNCTION refuse_terminal_change();

-- The plan is written before the first step runs, so every step is recorded for compensation before its action runs.
CREATE TABLE saga_steps (
    org_id      uuid        NOT NULL,
    saga_id     uuid        NOT NULL,
    position    integer     NOT NULL,
    name        text        NOT NULL,
    status      text        NOT NULL DEFAULT 'PENDING' CONSTRAINT saga_steps_status_known
                CHECK (status IN ('PENDING', 'RUNNING', 'DONE', 'FAILED', 'COMPENSATED')),
    -- Attempts of the action.
    attempts    integer     NOT NULL DEFAULT 0,
    started_at  timestamptz,
    finished_at timestamptz,
    -- A text for the user who waits for the operation, if any.
    detail      text,
    -- Attempts of the compensation, and when it succeeded. A step that FAILED keeps this status and is compensated
    -- nevertheless, because it may be partly done.
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

-- The changes of a saga's status and its steps, in order. The operation's event stream reads them from here, so it
-- loses no event when Redis does.
CREATE TABLE saga_events (
    org_id  uuid        NOT NULL,
    saga_id uuid        NOT NULL,
    -- 1, 2, 3 … without gaps, assigned under the saga's row lock; the event's id in the event stream.
    seq     bigint      NOT NULL,
    -- The step, or null for a status of the saga itself.
    step    text,
    status  text        NOT NULL,
    detail  text,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT saga_events_pkey PRIMARY KEY (org_id, saga_id, seq),
    CONSTRAINT saga_events_saga_fkey FOREIGN KEY (org_id, saga_id) REFERENCES sagas (org_id, id) ON DELETE CASCADE
);
CALL wall_by_org('saga_events');
GRANT SELECT, INSERT (org_id, saga_id, seq, step, status, detail) ON saga_events TO atrium_app;
