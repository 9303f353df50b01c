-- The relay works by shards, each with one owner at a time, and records each message's entry in Redis.

ALTER TABLE outbox
    -- The entry's id in its stream: with it the sweeper checks whether Redis still has the entry. Null if unknown: not
    -- published, or published by an earlier release.
    ADD COLUMN entry_id text,
    -- A message's shard, of eight: the low bits of its aggregate's id, like the chat's shards, so that an aggregate's
    -- messages are in one. `chat_shard` in Rust computes the same, and a test compares them. A stored column, so that
    -- no index and no query has a copy of the formula; not a function, because an index on one needs the application's
    -- right to call it, and the wall grants none.
    ADD COLUMN shard integer NOT NULL GENERATED ALWAYS AS (get_byte(uuid_send(aggregate_id), 15) & 7) STORED;
GRANT UPDATE (entry_id) ON outbox TO atrium_relay;

-- By shard, of which each has one owner; and by topic: a stream that takes nothing must not keep those behind it from theirs. A message consumed before it
-- was marked as published (the relay died in between) is not published again. While a relay of the release before
-- still runs, it has no index for its look; it is slower, and finds the same.
DROP INDEX outbox_due, outbox_delayed, outbox_unconsumed;
CREATE INDEX outbox_due ON outbox (shard, topic, id)
    WHERE published_at IS NULL AND consumed_at IS NULL AND dead_at IS NULL AND available_at IS NULL;
CREATE INDEX outbox_delayed ON outbox (shard, topic, available_at)
    WHERE published_at IS NULL AND consumed_at IS NULL AND dead_at IS NULL AND available_at IS NOT NULL;
CREATE INDEX outbox_unconsumed ON outbox (shard, published_at, id)
    WHERE published_at IS NOT NULL AND consumed_at IS NULL AND dead_at IS NULL;

-- Leases: which process may publish a shard, and until when. Rows are created on first use.
CREATE TABLE relay_leases (
    shard      smallint    CONSTRAINT relay_leases_pkey PRIMARY KEY,
    -- The process.
    owner      text        NOT NULL,
    -- The fencing token: higher with every owner. Redis rejects lower ones than it has seen. It is counted here, so a
    -- flush does not reset it; if this row is restored to an earlier state, its next owner continues from the highest
    -- token in Redis.
    token      bigint      NOT NULL,
    expires_at timestamptz NOT NULL
);
-- It belongs to no tenant and contains no tenant data. It has the wall nevertheless, which hides it from the
-- application.
ALTER TABLE relay_leases ENABLE ROW LEVEL SECURITY;
ALTER TABLE relay_leases FORCE ROW LEVEL SECURITY;
CREATE POLICY guard ON relay_leases AS RESTRICTIVE FOR ALL TO atrium_app USING (false) WITH CHECK (false);
CREATE POLICY relay ON relay_leases FOR ALL TO atrium_relay USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON relay_leases TO atrium_relay;
