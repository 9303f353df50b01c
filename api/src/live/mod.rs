//! The live path inside a process: one connection reads all live streams, and everything fans out in memory.
//!
//! ```text
//! Redis ─ one XREAD ─ hub ─┬─ ring per chat shard ── cursor of each stream
//!                          ├─ hints about operations ── streams that read PostgreSQL
//!                          └─ announced revisions ── the configuration store ── streams that compare revisions
//! ```

pub mod access;
pub mod answer;
pub mod frame;
pub mod hints;
pub mod hub;
pub mod open_streams;
pub mod position;
pub mod presence;
pub mod resume;
pub mod ring;
pub mod session_cache;
mod slots;

use std::{sync::Arc, time::Duration};

use atrium_shared::{
    configuration::ConfigurationStore,
    db::{Database, Watcher},
    identity::Revocations,
    lifecycle::Shutdown,
    streams::{Live as LiveStream, Redis, Tail},
};
use tokio_util::sync::CancellationToken;

use self::{
    access::EndedAccess, hub::Hub, open_streams::OpenStreams, presence::Presence, session_cache::SessionCache,
};

/// The live path of this process. Cheap to clone.
#[derive(Clone)]
pub struct Live {
    /// Distributes events inside this process.
    pub hub: Arc<Hub>,
    /// The open event streams.
    pub streams: OpenStreams,
    /// Cached chat sessions.
    pub sessions: Arc<SessionCache>,
    /// The chat sessions that have an open stream.
    pub presence: Presence,
}

impl Live {
    /// Starts the tasks that read the live streams and serve the open event streams until the process stops. When it
    /// drains, it ends the open event streams within `drain`.
    #[must_use]
    pub fn start(
        database: &Database,
        watcher: &Watcher,
        redis: &Redis,
        configuration: &ConfigurationStore,
        revocations: &Revocations,
        shutdown: &Shutdown,
        drain: Duration,
    ) -> Self {
        let ended = EndedAccess::default();
        let live = Self {
            hub: Arc::default(),
            streams: OpenStreams::new(shutdown.clone()),
            sessions: Arc::new(SessionCache::new(ended.clone())),
            presence: Presence::default(),
        };
        let tail = Tail::new(redis.clone(), LiveStream::all());
        let (done, draining) = (live.streams.done().clone(), shutdown.draining().clone());
        // Open streams receive events during the drain too, so this reads until the last one has ended.
        shutdown.spawn_critical("live streams", live.clone().follow(tail, configuration.clone(), done));
        shutdown.spawn_critical(
            "live configuration",
            live.clone().follow_configuration(configuration.clone(), draining.clone()),
        );
        shutdown.spawn_critical(
            "open streams",
            live.streams.clone().serve(configuration.clone(), revocations.clone(), ended.clone(), drain),
        );
        shutdown.spawn_critical("ended access", ended.follow(watcher.clone(), live.streams.done().clone()));
        shutdown.spawn_critical("presence", live.presence.clone().keep_reporting(database.clone(), draining));
        live
    }

    async fn follow(
        self,
        mut tail: Tail,
        configuration: ConfigurationStore,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        while let Some(events) = stop.run_until_cancelled(tail.next()).await {
            for event in &events {
                configuration.take(event);
            }
            self.hub.dispatch(&events, |session| self.sessions.close(session));
        }
        Ok(())
    }

    async fn follow_configuration(
        self,
        configuration: ConfigurationStore,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut swapped = configuration.subscribe();
        while let Some(Ok(())) = stop.run_until_cancelled(swapped.changed()).await {
            self.hub.hint_applied(&configuration);
        }
        Ok(())
    }
}
