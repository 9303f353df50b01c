//! The configuration that this process applies, kept up to date.
//!
//! Three things trigger a load: an event on the live stream (milliseconds), the reconcile query (seconds, without
//! Redis), and first use. All three end in the same step: load the newest snapshot, and swap it in if it is newer than
//! the cached one. So events may be lost, repeated or out of order, and revisions never go back.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use metrics::{counter, gauge, histogram};
use parking_lot::RwLock;
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Snapshot, Values, report};
use crate::{
    clock,
    db::{Database, DbError, Principal, Watcher, in_time},
    ids::OrgId,
    lifecycle::Shutdown,
    messages::{RevisionEntry, StreamEntry as _},
    streams::{Live, Redis, Tail, TailEvent},
    telemetry::metrics::{CONFIG_APPLY_FAILURES, CONFIG_APPLY_SECONDS, CONFIG_PLATFORM_REVISION},
    timings::{CONFIGURATION_RECONCILE_INTERVAL, CONFIGURATION_REPORT_INTERVAL},
};

const RECONCILE_JITTER: f64 = 0.1;
/// How many organizations are loaded concurrently after a burst of events.
const LOADS_AT_ONCE: usize = 4;
const PRINCIPAL: Principal = Principal::System("configuration");

/// The configuration of this process. Cheap to clone.
#[derive(Clone)]
pub struct ConfigurationStore(Arc<Inner>);

struct Inner {
    database: Database,
    watcher: Watcher,
    redis: Redis,
    process: String,
    state: RwLock<State>,
    changed: watch::Sender<u64>,
    news: mpsc::UnboundedSender<News>,
}

struct State {
    platform: Held,
    orgs: HashMap<OrgId, Held>,
}

/// A snapshot, and since when this process applies it.
#[derive(Clone)]
struct Held {
    snapshot: Arc<Snapshot>,
    since: OffsetDateTime,
}

enum News {
    /// This organization has this revision.
    Revision(OrgId, i64),
    /// Something may have been missed.
    Reconcile,
}

impl ConfigurationStore {
    /// Loads the platform's configuration and keeps all cached ones up to date. Organizations are loaded at first use,
    /// or on an event.
    ///
    /// # Errors
    /// If the database does not respond, or stores a platform configuration that this release cannot apply: there is no
    /// last good one yet.
    pub async fn start(
        database: Database,
        watcher: Watcher,
        redis: Redis,
        process: &str,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Self> {
        let values = read(&database, OrgId::PLATFORM).await?;
        let platform = Snapshot::build(OrgId::PLATFORM, &Default::default(), values)?;
        let (news, inbox) = mpsc::unbounded_channel();
        let store = Self(Arc::new(Inner {
            database,
            watcher,
            redis,
            process: process.to_owned(),
            state: RwLock::new(State { platform: Held::now(platform), orgs: HashMap::new() }),
            changed: watch::Sender::new(0),
            news,
        }));
        gauge!(CONFIG_PLATFORM_REVISION).set(store.platform().revision() as f64);
        let stop = shutdown.draining().clone();
        shutdown.spawn_critical("configuration", store.clone().keep_up(inbox, stop.clone()));
        shutdown.spawn_critical("configuration reports", store.clone().keep_reporting(stop));
        Ok(store)
    }

    /// The defaults of all organizations.
    #[must_use]
    pub fn platform(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.state.read().platform.snapshot)
    }

    /// The effective values of an organization; loads them if they are not cached.
    ///
    /// # Errors
    /// When it has to be loaded and the database does not answer.
    pub async fn org(&self, org: OrgId) -> Result<Arc<Snapshot>, DbError> {
        if let Some(snapshot) = self.held(org) {
            return Ok(snapshot);
        }
        self.load(org).await
    }

    /// The effective values of an organization, if they are cached.
    #[must_use]
    pub fn held(&self, org: OrgId) -> Option<Arc<Snapshot>> {
        let state = self.0.state.read();
        if org == OrgId::PLATFORM {
            return Some(Arc::clone(&state.platform.snapshot));
        }
        state.orgs.get(&org).map(|held| Arc::clone(&held.snapshot))
    }

    /// Changes whenever any snapshot was swapped.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Takes updates from the live stream: an entry's fields, or a gap.
    pub fn take(&self, event: &TailEvent) {
        let news = match event {
            TailEvent::Entry { stream: Live::Config, fields, .. } => {
                // A malformed entry may be about any organization: look at all of them.
                RevisionEntry::from_fields(fields)
                    .map_or(News::Reconcile, |RevisionEntry { org, revision }| News::Revision(org, revision))
            }
            TailEvent::Gap { stream: Live::Config } => News::Reconcile,
            _ => return,
        };
        // The receiver ends with the process.
        let _ = self.0.news.send(news);
    }

    /// Reads the live stream of configuration events until the process drains: for processes that read no other
    /// live stream.
    ///
    /// # Errors
    /// Never; the signature is that of a critical task.
    pub async fn follow_stream(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut tail = Tail::new(self.0.redis.clone(), [Live::Config]);
        while let Some(events) = stop.run_until_cancelled(tail.next()).await {
            for event in &events {
                self.take(event);
            }
        }
        Ok(())
    }

    async fn keep_up(
        self,
        mut inbox: mpsc::UnboundedReceiver<News>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        loop {
            let pause = CONFIGURATION_RECONCILE_INTERVAL
                .mul_f64(1.0 + rand::random_range(-RECONCILE_JITTER..RECONCILE_JITTER));
            let first = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                news = inbox.recv() => news,
                () = tokio::time::sleep(pause) => Some(News::Reconcile),
            };
            // A burst is one load per organization, not one per event.
            let mut orgs = HashSet::new();
            let mut reconcile = false;
            for news in first.into_iter().chain(std::iter::from_fn(|| inbox.try_recv().ok())) {
                match news {
                    News::Revision(org, revision) if self.is_newer(org, revision) => drop(orgs.insert(org)),
                    News::Revision(..) => {}
                    News::Reconcile => reconcile = true,
                }
            }
            if reconcile {
                orgs.extend(self.outdated().await);
            }
            self.load_all(orgs).await;
        }
    }

    async fn load_all(&self, orgs: HashSet<OrgId>) {
        let permits = Arc::new(tokio::sync::Semaphore::new(LOADS_AT_ONCE));
        let mut loads = tokio::task::JoinSet::new();
        for org in orgs {
            let (store, permits) = (self.clone(), Arc::clone(&permits));
            loads.spawn(async move {
                let _permit = permits.acquire_owned().await;
                if let Err(error) = store.load(org).await {
                    // The reconcile query will find it again.
                    tracing::warn!(%error, %org, "a changed configuration cannot be loaded; the last one stays");
                }
            });
        }
        loads.join_all().await;
    }

    fn is_newer(&self, org: OrgId, revision: i64) -> bool {
        self.held(org).is_none_or(|snapshot| snapshot.revision() < revision)
    }

    /// The organizations here, and the platform, whose revision in the database is another one.
    async fn outdated(&self) -> Vec<OrgId> {
        let mut orgs: Vec<OrgId> = self.0.state.read().orgs.keys().copied().collect();
        orgs.push(OrgId::PLATFORM);
        match self.0.watcher.config_revisions(&orgs).await {
            Ok(revisions) => {
                let there: HashMap<_, _> = revisions.into_iter().collect();
                let mut state = self.0.state.write();
                // Purged or in deletion: revision 0 removes it from all caches.
                state.orgs.retain(|org, _| there.get(org).is_some_and(|revision| *revision > 0));
                drop(state);
                there
                    .into_iter()
                    .filter(|(org, revision)| self.is_newer(*org, *revision))
                    .map(|(org, _)| org)
                    .collect()
            }
            Err(error) => {
                tracing::warn!(%error, "configuration revisions cannot be read; trying again");
                Vec::new()
            }
        }
    }

    /// Loads the newest snapshot and swaps it in, unless a newer one came first.
    async fn load(&self, org: OrgId) -> Result<Arc<Snapshot>, DbError> {
        let values = read(&self.0.database, org).await?;
        let changed_at = values.changed_at;
        let Some(held) = self.swap(org, values) else {
            // This release cannot apply what is stored: the last good one stays, and the reported revision shows it.
            counter!(CONFIG_APPLY_FAILURES).increment(1);
            return Ok(self.held(org).unwrap_or_else(|| self.platform()));
        };
        if let Some(changed_at) = changed_at {
            histogram!(CONFIG_APPLY_SECONDS).record((held.since - changed_at).as_seconds_f64().max(0.0));
        }
        self.0.changed.send_modify(|version| *version += 1);
        let applied = (org, held.snapshot.revision(), held.since);
        // Nothing is held or reported for an organization that does not exist.
        if org == OrgId::PLATFORM || applied.1 > 0 {
            let (redis, process) = (self.0.redis.clone(), self.0.process.clone());
            tokio::spawn(async move {
                if let Err(error) = report::report(&redis, &process, &[applied]).await {
                    tracing::debug!(%error, "an applied revision was not reported; the next report will say it");
                }
            });
        }
        Ok(held.snapshot)
    }

    fn swap(&self, org: OrgId, values: Values) -> Option<Held> {
        let mut state = self.0.state.write();
        let current = if org == OrgId::PLATFORM { Some(&state.platform) } else { state.orgs.get(&org) };
        if let Some(current) = current.filter(|current| current.snapshot.revision() >= values.revision) {
            return Some(current.clone());
        }
        let beneath = if org == OrgId::PLATFORM {
            Default::default()
        } else {
            state.platform.snapshot.values().organization.clone()
        };
        let revision = values.revision;
        let held = match Snapshot::build(org, &beneath, values) {
            Ok(snapshot) => Held::now(snapshot),
            Err(error) => {
                tracing::error!(%org, revision, %error, "a configuration cannot be applied; the last good one stays");
                return None;
            }
        };
        if org == OrgId::PLATFORM {
            gauge!(CONFIG_PLATFORM_REVISION).set(revision as f64);
            state.rebase(&held);
        } else if revision > 0 {
            // Revision 0 means that there is no such organization (yet): not worth remembering.
            state.orgs.insert(org, held.clone());
        }
        Some(held)
    }

    async fn keep_reporting(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(CONFIGURATION_REPORT_INTERVAL);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let applied: Vec<_> = {
                let state = self.0.state.read();
                let all = state.orgs.iter().chain([(&OrgId::PLATFORM, &state.platform)]);
                all.map(|(org, held)| (*org, held.snapshot.revision(), held.since)).collect()
            };
            if let Err(error) = report::report(&self.0.redis, &self.0.process, &applied).await {
                tracing::debug!(%error, "applied revisions were not reported; trying again");
            }
        }
        let _ = report::leave(&self.0.redis, &self.0.process).await;
        Ok(())
    }
}

impl State {
    /// Puts a new platform configuration beneath every organization's own. One whose values no longer fit keeps
    /// what it had.
    fn rebase(&mut self, platform: &Held) {
        self.platform = platform.clone();
        let beneath = &platform.snapshot.values().organization;
        for (org, held) in &mut self.orgs {
            match Snapshot::build(*org, beneath, held.snapshot.values().clone()) {
                // The organization's own revision is the same, and so is the time since which it applies.
                Ok(snapshot) => held.snapshot = Arc::new(snapshot),
                Err(error) => {
                    tracing::error!(%org, %error, "a new default does not fit; the last good one stays");
                }
            }
        }
    }
}

impl Held {
    fn now(snapshot: Snapshot) -> Self {
        Self { snapshot: Arc::new(snapshot), since: clock::now() }
    }
}

async fn read(database: &Database, org: OrgId) -> Result<Values, DbError> {
    in_time(async { Values::read(&mut database.org_tx(&PRINCIPAL, org).await?).await }).await
}
