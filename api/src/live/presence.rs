//! The chat sessions that are shown in a window: those with an open stream in this process.
//!
//! Every 30 seconds their `last_seen_at` is refreshed, in one transaction per organization, so that a session without a
//! window for two minutes can be detected. If the refresh finds that a session was closed or deleted and its event was
//! lost, its streams are ended.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use atrium_shared::{
    db::{Database, DbError, Principal, in_time},
    ids::{OrgId, SessionId},
};
use parking_lot::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use super::open_streams::OpenStream;

/// How often sessions are refreshed.
const REFRESH_INTERVAL: Duration = Duration::from_secs(30);
/// Relative jitter of the interval, so that processes that started together do not write together.
const JITTER: f64 = 0.1;
/// Maximum number of sessions in one statement.
const CHUNK: usize = 500;

/// Open streams by session. A session usually has one stream, because it is one window.
type BySession = HashMap<(OrgId, SessionId), Vec<Arc<OpenStream>>>;

/// The chat sessions with open streams. Cheap to clone.
#[derive(Clone, Default)]
pub struct Presence {
    open: Arc<Mutex<BySession>>,
}

impl Presence {
    /// Records that the session has this open stream, until the returned guard is dropped.
    #[must_use]
    pub fn enter(&self, org: OrgId, session: SessionId, stream: Arc<OpenStream>) -> PresenceGuard {
        self.lock().entry((org, session)).or_default().push(Arc::clone(&stream));
        PresenceGuard { presence: self.clone(), key: (org, session), stream }
    }

    /// Refreshes the sessions periodically until the process drains.
    ///
    /// # Errors
    /// Never; the signature is that of a critical task.
    pub async fn keep_reporting(self, database: Database, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            let pause = REFRESH_INTERVAL.mul_f64(1.0 + rand::random_range(-JITTER..JITTER));
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Ok(());
            }
            self.report(&database).await;
        }
    }

    /// Refreshes the sessions once.
    pub async fn report(&self, database: &Database) {
        let mut by_org: HashMap<OrgId, Vec<SessionId>> = HashMap::new();
        for (org, session) in self.lock().keys() {
            by_org.entry(*org).or_default().push(*session);
        }
        for (org, sessions) in by_org {
            for chunk in sessions.chunks(CHUNK) {
                match in_time(refresh(database, org, chunk)).await {
                    Ok(open) => self.end_closed(org, chunk, &open),
                    Err(error) => {
                        tracing::warn!(%error, %org, "open chat sessions were not refreshed; trying again later");
                    }
                }
            }
        }
    }

    /// Ends the streams of those `sessions` that are not in `open`.
    fn end_closed(&self, org: OrgId, sessions: &[SessionId], open: &HashSet<SessionId>) {
        let present = self.lock();
        for session in sessions.iter().filter(|session| !open.contains(session)) {
            for stream in present.get(&(org, *session)).into_iter().flatten() {
                // The client reconnects and receives the session's current state.
                stream.end();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BySession> {
        self.open.lock()
    }
}

/// Refreshes these sessions and returns those that are not closed.
async fn refresh(
    database: &Database,
    org: OrgId,
    sessions: &[SessionId],
) -> Result<HashSet<SessionId>, DbError> {
    let mut tx = database.org_tx(&Principal::System("presence"), org).await?;
    // All processes lock rows in the same order, so that two with the same sessions cannot deadlock.
    let mut sessions: Vec<uuid::Uuid> = sessions.iter().map(|session| session.uuid()).collect();
    sessions.sort_unstable();
    let open = sqlx::query_scalar!(
        r#"UPDATE chat_sessions SET last_seen_at = clock_timestamp()
           FROM unnest($2::uuid[]) AS present (id)
          WHERE chat_sessions.org_id = $1 AND chat_sessions.id = present.id AND chat_sessions.closed_at IS NULL
      RETURNING chat_sessions.id AS "id: SessionId""#,
        org as OrgId,
        &sessions
    )
    .fetch_all(tx.conn())
    .await?;
    tx.commit().await?;
    Ok(open.into_iter().collect())
}

/// An open stream of a session. It is removed from the presence when this is dropped.
pub struct PresenceGuard {
    presence: Presence,
    key: (OrgId, SessionId),
    stream: Arc<OpenStream>,
}

impl Drop for PresenceGuard {
    fn drop(&mut self) {
        let mut present = self.presence.lock();
        if let Some(streams) = present.get_mut(&self.key) {
            streams.retain(|stream| !Arc::ptr_eq(stream, &self.stream));
            if streams.is_empty() {
                present.remove(&self.key);
            }
        }
    }
}
