//! The configuration that this process applies, kept up to date.
//!
//! A snapshot is loaded after an event on the live stream (within milliseconds), after the reconcile query (within
//! seconds, also without Redis), and at first use. In each case the store loads the newest snapshot and replaces the
//! cached one if it is older. So events may be lost, duplicated or out of order, and a revision never decreases.

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
const MAX_CONCURRENT_LOADS: usize = 4;
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
    updates: mpsc::UnboundedSender<Update>,
}

struct State {
    platform: AppliedSnapshot,
    orgs: HashMap<OrgId, AppliedSnapshot>,
}

/// A snapshot, and since when this process applies it.
#[derive(Clone)]
struct AppliedSnapshot {
    snapshot: Arc<Snapshot>,
    since: OffsetDateTime,
}

enum Update {
    /// The organization has this revision.
    Revision(OrgId, i64),
    /// Updates may have been missed.
    Reconcile,
}

impl ConfigurationStore {
    /// Loads the platform configuration, and starts to keep all configuration up to date. Organizations are loaded
    /// when they are first used, or when an event announces a change.
    ///
    /// # Errors
    /// When the database does not answer, or this release cannot apply the stored platform configuration: there is no
    /// earlier valid one yet.
    pub async fn start(
        database: Database,
        watcher: Watcher,
        redis: Redis,
        process: &str,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Self> {
        let values = read(&database, OrgId::PLATFORM).await?;
        let platform = Snapshot::build(OrgId::PLATFORM, &Default::default(), values)?;
        let (updates, inbox) = mpsc::unbounded_channel();
        let store = Self(Arc::new(Inner {
            database,
            watcher,
            redis,
            process: process.to_owned(),
            state: RwLock::new(State { platform: AppliedSnapshot::now(platform), orgs: HashMap::new() }),
            changed: watch::Sender::new(0),
            updates,
        }));
        gauge!(CONFIG_PLATFORM_REVISION).set(store.platform().revision() as f64);
        let stop = shutdown.draining().clone();
        shutdown.spawn_critical("configuration", store.clone().apply_updates(inbox, stop.clone()));
        shutdown.spawn_critical("configuration reports", store.clone().keep_reporting(stop));
        Ok(store)
    }

    /// The platform configuration.
    #[must_use]
    pub fn platform(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.state.read().platform.snapshot)
    }

    /// The configuration of an organization; loaded when it is not cached.
    ///
    /// # Errors
    /// When it has to be loaded and the database does not answer.
    pub async fn org(&self, org: OrgId) -> Result<Arc<Snapshot>, DbError> {
        if let Some(snapshot) = self.held(org) {
            return Ok(snapshot);
        }
        self.load(org).await
    }

    /// The configuration of an organization, if it is cached.
    #[must_use]
    pub fn held(&self, org: OrgId) -> Option<Arc<Snapshot>> {
        let state = self.0.state.read();
        if org == OrgId::PLATFORM {
            return Some(Arc::clone(&state.platform.snapshot));
        }
        state.orgs.get(&org).map(|applied| Arc::clone(&applied.snapshot))
    }

    /// Changes whenever any snapshot was replaced.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Takes an event of the live stream: an entry's fields, or a gap.
    pub fn take(&self, event: &TailEvent) {
        let update = match event {
            TailEvent::Entry { stream: Live::Config, fields, .. } => {
                // A malformed entry may be about any organization, so all of them are checked.
                RevisionEntry::from_fields(fields)
                    .map_or(Update::Reconcile, |RevisionEntry { org, revision }| {
                        Update::Revision(org, revision)
                    })
            }
            TailEvent::Gap { stream: Live::Config } => Update::Reconcile,
            _ => return,
        };
        // This fails only while the process drains, when the receiver has been dropped.
        let _ = self.0.updates.send(update);
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

    async fn apply_updates(
        self,
        mut inbox: mpsc::UnboundedReceiver<Update>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        loop {
            let pause = CONFIGURATION_RECONCILE_INTERVAL
                .mul_f64(1.0 + rand::random_range(-RECONCILE_JITTER..RECONCILE_JITTER));
            let first = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                update = inbox.recv() => update,
                () = tokio::time::sleep(pause) => Some(Update::Reconcile),
            };
            // A burst of events causes one load per organization, not one per event.
            let mut orgs = HashSet::new();
            let mut reconcile = false;
            for update in first.into_iter().chain(std::iter::from_fn(|| inbox.try_recv().ok())) {
                match update {
                    Update::Revision(org, revision) if self.is_newer(org, revision) => drop(orgs.insert(org)),
                    Update::Revision(..) => {}
                    Update::Reconcile => reconcile = true,
                }
            }
            if reconcile {
                orgs.extend(self.outdated().await);
            }
            self.load_all(orgs).await;
        }
    }

    async fn load_all(&self, orgs: HashSet<OrgId>) {
        let permits = Arc::new(tokio::sync::Semaphore::new(MAX_CONCURRENT_LOADS));
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

    /// Of the platform and the cached organizations, those with a newer revision in the database.
    async fn outdated(&self) -> Vec<OrgId> {
        let mut orgs: Vec<OrgId> = self.0.state.read().orgs.keys().copied().collect();
        orgs.push(OrgId::PLATFORM);
        match self.0.watcher.config_revisions(&orgs).await {
            Ok(revisions) => {
                let stored: HashMap<_, _> = revisions.into_iter().collect();
                let mut state = self.0.state.write();
                // Organizations that are deleted, or being deleted, are removed: the latter have revision 0.
                state.orgs.retain(|org, _| stored.get(org).is_some_and(|revision| *revision > 0));
                drop(state);
                stored
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

    /// Loads the newest snapshot and replaces the cached one, unless that is as new or newer.
    async fn load(&self, org: OrgId) -> Result<Arc<Snapshot>, DbError> {
        let values = read(&self.0.database, org).await?;
        let changed_at = values.changed_at;
        let Some(applied) = self.swap(org, values) else {
            // This release cannot apply the stored values. The last valid snapshot stays, and the reported revision
            // shows this.
            counter!(CONFIG_APPLY_FAILURES).increment(1);
            return Ok(self.held(org).unwrap_or_else(|| self.platform()));
        };
        if let Some(changed_at) = changed_at {
            histogram!(CONFIG_APPLY_SECONDS).record((applied.since - changed_at).as_seconds_f64().max(0.0));
        }
        self.0.changed.send_modify(|version| *version += 1);
        let reported = (org, applied.snapshot.revision(), applied.since);
        // Organizations that do not exist have revision 0. They are neither cached nor reported.
        if org == OrgId::PLATFORM || reported.1 > 0 {
            let (redis, process) = (self.0.redis.clone(), self.0.process.clone());
            tokio::spawn(async move {
                if let Err(error) = report::report(&redis, &process, &[reported]).await {
                    tracing::debug!(%error, "an applied revision was not reported; the next report includes it");
                }
            });
        }
        Ok(applied.snapshot)
    }

    /// Replaces the cached snapshot, unless that is as new or newer. Returns the newer of the two; none when `values`
    /// cannot be applied.
    fn swap(&self, org: OrgId, values: Values) -> Option<AppliedSnapshot> {
        let mut state = self.0.state.write();
        let current = if org == OrgId::PLATFORM { Some(&state.platform) } else { state.orgs.get(&org) };
        if let Some(current) = current.filter(|current| current.snapshot.revision() >= values.revision) {
            return Some(current.clone());
        }
        let defaults = if org == OrgId::PLATFORM {
            Default::default()
        } else {
            state.platform.snapshot.values().organization.clone()
        };
        let revision = values.revision;
        let applied = match Snapshot::build(org, &defaults, values) {
            Ok(snapshot) => AppliedSnapshot::now(snapshot),
            Err(error) => {
                tracing::error!(%org, revision, %error, "a configuration cannot be applied; the last good one stays");
                return None;
            }
        };
        if org == OrgId::PLATFORM {
            gauge!(CONFIG_PLATFORM_REVISION).set(revision as f64);
            state.rebase(&applied);
        } else if revision > 0 {
            // An organization with revision 0 does not exist (yet), and is not cached.
            state.orgs.insert(org, applied.clone());
        }
        Some(applied)
    }

    async fn keep_reporting(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(CONFIGURATION_REPORT_INTERVAL);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let reported: Vec<_> = {
                let state = self.0.state.read();
                let all = state.orgs.iter().chain([(&OrgId::PLATFORM, &state.platform)]);
                all.map(|(org, applied)| (*org, applied.snapshot.revision(), applied.since)).collect()
            };
            if let Err(error) = report::report(&self.0.redis, &self.0.process, &reported).await {
                tracing::debug!(%error, "applied revisions were not reported; trying again");
            }
        }
        let _ = report::leave(&self.0.redis, &self.0.process).await;
        Ok(())
    }
}

impl State {
    /// Rebuilds every organization's snapshot on a new platform configuration. An organization whose snapshot cannot be
    /// built keeps its last one.
    fn rebase(&mut self, platform: &AppliedSnapshot) {
        self.platform = platform.clone();
        let defaults = &platform.snapshot.values().organization;
        for (org, applied) in &mut self.orgs {
            match Snapshot::build(*org, defaults, applied.snapshot.values().clone()) {
                // The organization's own revision does not change, so `since` does not either.
                Ok(snapshot) => applied.snapshot = Arc::new(snapshot),
                Err(error) => {
                    tracing::error!(%org, %error, "a new default does not fit; the last good one stays");
                }
            }
        }
    }
}

impl AppliedSnapshot {
    fn now(snapshot: Snapshot) -> Self {
        Self { snapshot: Arc::new(snapshot), since: clock::now() }
    }
}

async fn read(database: &Database, org: OrgId) -> Result<Values, DbError> {
    in_time(async { Values::read(&mut database.org_tx(&PRINCIPAL, org).await?).await }).await
}
