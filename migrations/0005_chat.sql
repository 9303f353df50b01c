-- Chat sessions and counters. There is no table of chat messages: events are kept in Redis, for minutes.

-- Chat sessions: open chat windows of one user in one project.
CREATE TABLE chat_sessions (
    org_id       uuid        NOT NULL,
    id           uuid        NOT NULL,
    project_id   uuid        NOT NULL,
    user_id      uuid        NOT NULL CONSTRAINT chat_sessions_user_fkey REFERENCES users (id),
    opened_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Refreshed while a stream is open. A session that had no stream for some time expires when its user opens the
    -- next one, so no cross-tenant scan is needed.
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

-- The position up to which a project's actions are counted, written in the transaction that counts. If a worker
-- crashes between the commit and the acknowledgment, the entry is redelivered, is below the cursor and is not counted
-- twice.
CREATE TABLE chat_cursors (
    org_id     uuid   NOT NULL,
    project_id uuid   NOT NULL,
    -- Identifies the stream's lifetime. Changes when Redis loses the stream, because entry ids of different lifetimes
    -- are not comparable.
    history    text   NOT NULL,
    -- The id of the last counted entry, <entry_ms>-<entry_seq>.
    entry_ms   bigint NOT NULL,
    entry_seq  bigint NOT NULL,
    CONSTRAINT chat_cursors_pkey PRIMARY KEY (org_id, project_id),
    CONSTRAINT chat_cursors_project_fkey FOREIGN KEY (org_id, project_id) REFERENCES projects (org_id, id) ON DELETE CASCADE
);
CALL wall_by_org('chat_cursors');
GRANT SELECT, INSERT, UPDATE (history, entry_ms, entry_seq) ON chat_cursors TO atrium_app;
