-- What operators need: the state of the write path, and dead letters to replay or drop.

-- A consumer that works on a message for long records it, or the sweeper would take the message for lost and publish it
-- again; and a replayed dead letter is published again.
GRANT UPDATE (published_at) ON outbox TO atrium_app;

-- Dead letters that wait for an operator: counted every few seconds, and few.
CREATE INDEX outbox_dead ON outbox (dead_at) WHERE dead_at IS NOT NULL AND consumed_at IS NULL;

-- When compensation began: the saga's age would include the time until it failed.
ALTER TABLE sagas ADD COLUMN turned_around_at timestamptz;
GRANT UPDATE (turned_around_at) ON sagas TO atrium_app;

-- How many sagas are on their way, of which kind and for how long, over all organizations. The watcher sees those that
-- have not ended, and of them neither whose they are nor which, nor what they are about.
CREATE INDEX sagas_running ON sagas (kind, status) WHERE finished_at IS NULL;
CREATE POLICY watch ON sagas FOR SELECT TO atrium_watcher USING (finished_at IS NULL);
GRANT SELECT (kind, status, created_at, turned_around_at) ON sagas TO atrium_watcher;
