-- Indexes and rights for the metrics of the write path, and for the handling of dead letters.

-- A consumer that handles a message for a long time refreshes published_at, because the sweeper would otherwise treat
-- the message as lost and publish it again. A replayed dead letter is also published again.
GRANT UPDATE (published_at) ON outbox TO atrium_app;

-- Dead letters that wait for an operator. They are few, and counted every few seconds.
CREATE INDEX outbox_dead ON outbox (dead_at) WHERE dead_at IS NOT NULL AND consumed_at IS NULL;

-- When the saga's compensation began. The saga's age would also include the time before the failure.
ALTER TABLE sagas ADD COLUMN turned_around_at timestamptz;
GRANT UPDATE (turned_around_at) ON sagas TO atrium_app;

-- For the number and age of unfinished sagas by kind and status, across all organizations. The watcher can read only
-- unfinished sagas, without their ids, organizations, requesters and content.
CREATE INDEX sagas_running ON sagas (kind, status) WHERE finished_at IS NULL;
CREATE POLICY watch ON sagas FOR SELECT TO atrium_watcher USING (finished_at IS NULL);
GRANT SELECT (kind, status, created_at, turned_around_at) ON sagas TO atrium_watcher;
