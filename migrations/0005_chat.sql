-- Chat stores sessions and counts. There is no message table: events live for minutes, in Redis.

-- One open window of one person on one project.
CREATE TABLE chat_sessions (
    org_id       uuid        NOT NULL,
    id           uuid        NOT NULL,
    project_id   uuid        NOT NULL,
    user_id      uuid        NOT NULL CONSTRAINT chat_sessions_user_fkey REFERENCES users (id),
    opened_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Refreshed while a stream is open. A session without a stream for a while is expired when its user
    -- opens the next one: no scan across tenants is needed.
    last_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    closed_at    timestamptz,
    close_reason text        CONSTRAINT chat_sessions_reason_known CHECK (close_reason IN ('replaced', 'closed', 'expired')),
    CONSTRAINT chat_sessions_pkey PRIMARY KEY (org_id, id),
    CONSTRAINT chat_sessions_project_fkey FOREIGN KEY (org_id, project_id) REFERENCES projects (org_id, id) ON DELETE CASCADE,
    CONSTRAINT chat_sessions_closed_whole CHECK ((closed_at IS NULL) = (close_reason IS NULL))
);
CREATE INDEX chat_sessions_open ON chat_sessions (org_id, project_id, user_id, opened_at) WHERE closed_at IS NULL;
CALL wall_by_org('chat_sessions');
GRANT SELECT, INSERT (org_id, id, project_id, user_id), UPDATE (last_seen_at, closed_at, close_reason), DELETE
    ON chat_sessions TO atrium_app;

CREATE TABLE chat_counters (
    org_id     uuid   NOT NULL,
    project_id uuid   NOT NULL,
    action     text   NOT NULL,
    count      bigint NOT NULL DEFAULT 0,
    CONSTRAINT chat_counters_pkey PRIMARY KEY (org_id, project_id, action),
    CONSTRAINT chat_counters_project_fkey FOREIGN KEY (org_id, project_id) REFERENCES projects (org_id, id) ON DELETE CASCADE
);
CALL wall_by_org('chat_counters');
GRANT SELECT, INSERT, UPDATE (count) ON chat_counters TO atrium_app;

-- How far a project's actions are counted. Written in the transaction that counts: an entry delivered again, after
-- a worker died between the count and the acknowledgement, is below the cursor and is not counted twice.
CREATE TABLE chat_cursors (
    org_id     uuid   NOT NULL,
    project_id uuid   NOT NULL,
    -- The stream's history: another one when Redis lost the stream, and with it the meaning of its ids.
    history    text   NOT NULL,
    -- The last counted entry's id, <entry_ms>-<entry_seq>.
    entry_ms   bigint NOT NULL,
    entry_seq  bigint NOT NULL,
    CONSTRAINT chat_cursors_pkey PRIMARY KEY (org_id, project_id),
    CONSTRAINT chat_cursors_project_fkey FOREIGN KEY (org_id, project_id) REFERENCES projects (org_id, id) ON DELETE CASCADE
);
CALL wall_by_org('chat_cursors');
GRANT SELECT, INSERT, UPDATE (history, entry_ms, entry_seq) ON chat_cursors TO atrium_app;
