-- What is needed to say how the write path is, and to take care of what it gave up.

-- A consumer that works on a message for long says so, or the sweeper would take it for lost and publish it again;
-- and a dead letter that is replayed is published anew.
GRANT UPDATE (published_at) ON outbox TO atrium_app;

-- Dead letters that wait for an operator: counted every few seconds, and few.
CREATE INDEX outbox_dead ON outbox (dead_at) WHERE dead_at IS NOT NULL AND consumed_at IS NULL;
