-- What is needed to say how the write path is, and to take care of what it gave up.

-- A consumer that works on a message for long says so, or the sweeper would take it for lost and publish it again;
-- and a dead letter that is replayed is published anew.
GRANT UPDATE (published_at) ON outbox TO atrium_app;

-- Dead letters that wait for an operator: counted every few seconds, and few.
CREATE INDEX outbox_dead ON outbox (dead_at) WHERE dead_at IS NOT NULL AND consumed_at IS NULL;

-- Since when a saga is taken back: its age would tell how long it took to fail as well.
ALTER TABLE sagas ADD COLUMN turned_around_at timestamptz;
GRANT UPDATE (turned_around_at) ON sagas TO atrium_app;

-- How many sagas are on their way, of which kind and for how long, over all organizations. The watcher sees those that
-- have not ended, and of them neither whose they are nor which, nor what they are about.
CREATE INDEX sagas_running ON sagas (kind, status) WHERE finished_at IS NULL;
CREATE POLICY watch ON sagas FOR SELECT TO atrium_watcher USING (finished_at IS NULL);
GRANT SELECT (kind, status, created_at, turned_around_at) ON sagas TO atrium_watcher;
