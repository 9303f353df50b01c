-- The relay works by shards, each with one owner at a time, and knows where each message lies in Redis.

ALTER TABLE outbox
    -- The entry's id in its stream: with it the sweeper asks Redis whether the entry is still on its way. Null where
    -- nobody knows: not published, or by an earlier release.
    ADD COLUMN entry_id text;
GRANT UPDATE (entry_id) ON outbox TO atrium_relay;

-- A message's shard: the low bits of its aggregate's id, as the chat's shards are cut, so that an aggregate's messages
-- are in one. Not a stored column: adding one rewrites the table under a lock that nobody passes, while an index on the
-- expression costs writers a pause for one look through it.
-- By topic, too: a stream that takes nothing must not keep those behind it from theirs. A message consumed before it
-- was marked as published (the relay died in between) is not published again. While a relay of the release before
-- still runs, it has no index for its look; it is slower, and finds the same.
DROP INDEX outbox_due, outbox_delayed, outbox_unconsumed;
CREATE INDEX outbox_due ON outbox ((get_byte(uuid_send(aggregate_id), 15) & 7), topic, id)
    WHERE published_at IS NULL AND consumed_at IS NULL AND dead_at IS NULL AND available_at IS NULL;
CREATE INDEX outbox_delayed ON outbox ((get_byte(uuid_send(aggregate_id), 15) & 7), topic, available_at)
    WHERE published_at IS NULL AND consumed_at IS NULL AND dead_at IS NULL AND available_at IS NOT NULL;
CREATE INDEX outbox_unconsumed ON outbox ((get_byte(uuid_send(aggregate_id), 15) & 7), published_at, id)
    WHERE published_at IS NOT NULL AND consumed_at IS NULL AND dead_at IS NULL;

-- Who may publish a shard, and until when. Rows are made by whoever comes first.
CREATE TABLE relay_leases (
    shard      smallint    CONSTRAINT relay_leases_pkey PRIMARY KEY,
    -- The process.
    owner      text        NOT NULL,
    -- The fencing token: higher with every owner. Redis refuses lower ones than it has seen. It is counted here, so a
    -- flush does not set it back; if this row is set back, its next owner counts on from what Redis has seen.
    token      bigint      NOT NULL,
    expires_at timestamptz NOT NULL
);
-- It belongs to no tenant and says nothing of one. It has the wall nevertheless, which lets the application see nothing.
ALTER TABLE relay_leases ENABLE ROW LEVEL SECURITY;
ALTER TABLE relay_leases FORCE ROW LEVEL SECURITY;
CREATE POLICY guard ON relay_leases AS RESTRICTIVE FOR ALL TO atrium_app USING (false) WITH CHECK (false);
CREATE POLICY relay ON relay_leases FOR ALL TO atrium_relay USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON relay_leases TO atrium_relay;
