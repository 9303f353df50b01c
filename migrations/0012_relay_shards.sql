-- The relay works by shards, each with one owner at a time, and records each message's entry id in Redis.

ALTER TABLE outbox
    -- The id of the message's entry in its stream, with which the sweeper checks whether Redis still has the entry.
    -- Null if the message is not published, or was published by an earlier release.
    ADD COLUMN entry_id text,
    -- The message's shard, one of eight: the low bits of its aggregate's id, as for chat shards, so that all messages
    -- of an aggregate are in one shard. `chat_shard` in Rust computes the same, and a test compares both. It is a
    -- stored column, so that no index and no query repeats the formula. It is not a function, because an index on a
    -- function would require that the application may call it, and the application has no such right.
    ADD COLUMN shard integer NOT NULL GENERATED ALWAYS AS (get_byte(uuid_send(aggregate_id), 15) & 7) STORED;
GRANT UPDATE (entry_id) ON outbox TO atrium_relay;

-- Indexed by shard, because each has one owner, and by topic, so that a stream that accepts nothing does not block the
-- messages of other streams. A message that was consumed before it was marked as published (the relay crashed in
-- between) is not published again. While a relay of the previous release still runs, its query has no index: it is
-- slower but returns the same rows.
DROP INDEX outbox_due, outbox_delayed, outbox_unconsumed;
CREATE INDEX outbox_due ON outbox (shard, topic, id)
    WHERE published_at IS NULL AND consumed_at IS NULL AND dead_at IS NULL AND available_at IS NULL;
CREATE INDEX outbox_delayed ON outbox (shard, topic, available_at)
    WHERE published_at IS NULL AND consumed_at IS NULL AND dead_at IS NULL AND available_at IS NOT NULL;
CREATE INDEX outbox_unconsumed ON outbox (shard, published_at, id)
    WHERE published_at IS NOT NULL AND consumed_at IS NULL AND dead_at IS NULL;

-- Leases: which process may publish a shard, and until when. The first owner of a shard inserts the row.
CREATE TABLE relay_leases (
    shard      smallint    CONSTRAINT relay_leases_pkey PRIMARY KEY,
    -- The name of the process.
    owner      text        NOT NULL,
    -- The fencing token: greater with every owner. Redis rejects tokens lower than the greatest it has seen. It is
    -- counted here, so that a flush does not reset it. If this row is restored to an earlier state, the next owner
    -- continues from the token that Redis has seen.
    token      bigint      NOT NULL,
    expires_at timestamptz NOT NULL
);
-- It contains no tenant data. Row-level security is enabled nevertheless, so that the application can read nothing.
ALTER TABLE relay_leases ENABLE ROW LEVEL SECURITY;
ALTER TABLE relay_leases FORCE ROW LEVEL SECURITY;
CREATE POLICY guard ON relay_leases AS RESTRICTIVE FOR ALL TO atrium_app USING (false) WITH CHECK (false);
CREATE POLICY relay ON relay_leases FOR ALL TO atrium_relay USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON relay_leases TO atrium_relay;
