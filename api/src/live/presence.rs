//! Which chat sessions are shown in a window: those with an open stream in this process.
//!
//! Every half minute their `last_seen_at` is refreshed, one transaction per organization, so that a session that
//! no window has shown for two minutes can be told from one that is open. What turns out to be gone or over, its
//! event having been lost, loses its streams here.

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
const EVERY: Duration = Duration::from_secs(30);
/// Processes that started together do not write together.
const JITTER: f64 = 0.1;
/// The most sessions in one statement.
const CHUNK: usize = 500;

/// Open streams by session. Mostly one: a window.
type BySession = HashMap<(OrgId, SessionId), Vec<Arc<OpenStream>>>;

/// The chat sessions with open streams. Cheap to clone.
#[derive(Clone, Default)]
pub struct Presence {
    open: Arc<Mutex<BySession>>,
}

impl Presence {
    /// A stream of this session is open as long as the answer lives.
    #[must_use]
    pub fn enter(&self, org: OrgId, session: SessionId, stream: Arc<OpenStream>) -> Present {
        self.lock().entry((org, session)).or_default().push(Arc::clone(&stream));
        Present { presence: self.clone(), key: (org, session), stream }
    }

    /// Refreshes the sessions until the process drains.
    ///
    /// # Errors
    /// Never; the signature is that of a critical task.
    pub async fn keep_reporting(self, database: Database, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            let pause = EVERY.mul_f64(1.0 + rand::random_range(-JITTER..JITTER));
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
                    Ok(open) => self.end_all_but(org, chunk, &open),
                    Err(error) => {
                        tracing::warn!(%error, %org, "open chat sessions were not refreshed; trying again later");
                    }
                }
            }
        }
    }

    fn end_all_but(&self, org: OrgId, asked: &[SessionId], open: &HashSet<SessionId>) {
        let present = self.lock();
        for session in asked.iter().filter(|session| !open.contains(session)) {
            for stream in present.get(&(org, *session)).into_iter().flatten() {
                // The client comes back, and is told how things stand.
                stream.end();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BySession> {
        self.open.lock()
    }
}

/// The sessions of these that are open.
async fn refresh(
    database: &Database,
    org: OrgId,
    sessions: &[SessionId],
) -> Result<HashSet<SessionId>, DbError> {
    let mut tx = database.org_tx(&Principal::System("presence"), org).await?;
    // In one order, so that two processes with the same sessions wait for each other instead of blocking both.
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

/// An open stream of a session. It is left when this is dropped.
pub struct Present {
    presence: Presence,
    key: (OrgId, SessionId),
    stream: Arc<OpenStream>,
}

impl Drop for Present {
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
