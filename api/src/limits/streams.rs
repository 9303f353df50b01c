//! Counts the open event streams of an organization over all processes.
//!
//! Redis has a hash for each organization: process → number of open streams and time of the report. In each process one
//! task makes all calls, in batches, with one call for each organization that has changes. A script compares and grants
//! atomically, so the last permit is granted only once. A returned permit is no longer in the number that the next call
//! reports. Every process repeats its reports every two seconds. So the streams of a killed process are removed after
//! ten seconds, and after a flush the numbers are complete again within two. Until then no permit is granted, unless
//! there is only one process, whose own number is complete. While Redis is unavailable, each process grants its share.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc, time::Duration};

use atrium_shared::{
    ids::OrgId,
    streams::{LimitKeys, lua},
    telemetry::metrics::{RATE_LIMITED, UNSHARED_LIMITS},
    timings::is_longer,
};
use futures_util::future::join_all;
use metrics::counter;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{limiter::digest, shared::Shared};

/// How often a process repeats its reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);
/// A process without a report for this long is counted as having no streams.
const LIVENESS_TIMEOUT: Duration = Duration::from_secs(10);
/// After a flush, all processes have repeated their reports within this time.
const REPORT_GRACE: Duration = Duration::from_secs(4);
const POLICY: &str = "streams";

// Losing two reports does not remove the streams of a live process.
const _: () = assert!(is_longer(LIVENESS_TIMEOUT, 3, REPORT_INTERVAL));
// After a flush, every process reports within the grace period, and that ends before any of them is removed.
const _: () = assert!(is_longer(REPORT_GRACE, 1, REPORT_INTERVAL));
const _: () = assert!(is_longer(LIVENESS_TIMEOUT, 1, REPORT_GRACE));

/// The quotas of open streams. Cheap to clone.
#[derive(Clone)]
pub struct StreamQuotas {
    messages: mpsc::UnboundedSender<Message>,
}

enum Message {
    Enter { org: OrgId, quota: NonZeroU32, reply: oneshot::Sender<Option<StreamPermit>> },
    Released(OrgId),
}

/// Counts as one of an organization's open streams until it is dropped.
pub struct StreamPermit {
    org: OrgId,
    messages: mpsc::UnboundedSender<Message>,
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        // This fails only when the task has ended with the process, and the count no longer matters.
        let _ = self.messages.send(Message::Released(self.org));
    }
}

impl StreamQuotas {
    /// Returns the quotas and the task that requests permits from Redis until `stop`.
    pub fn new(
        shared: Arc<Shared>,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = anyhow::Result<()>> + Send) {
        let (messages, inbox) = mpsc::unbounded_channel();
        let permits = PermitTask { shared, messages: messages.clone(), open: HashMap::new() };
        (Self { messages }, async move {
            stop.run_until_cancelled(permits.run(inbox)).await;
            Ok(())
        })
    }

    /// Requests a permit. `None` if the quota of the organization is used up.
    pub async fn enter(&self, org: OrgId, quota: NonZeroU32) -> Option<StreamPermit> {
        let (reply, permit) = oneshot::channel();
        self.messages.send(Message::Enter { org, quota, reply }).ok()?;
        permit.await.ok().flatten()
    }
}

/// The task that reports open streams and requests permits.
struct PermitTask {
    shared: Arc<Shared>,
    messages: mpsc::UnboundedSender<Message>,
    open: HashMap<OrgId, OrgStreams>,
}

/// The open streams of one organization in this process.
struct OrgStreams {
    count: u32,
    quota: NonZeroU32,
}

/// The requests for permits of an organization. Empty if its number of open streams only has to be reported.
type Waiting = Vec<oneshot::Sender<Option<StreamPermit>>>;

impl PermitTask {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message>) {
        let mut reports = tokio::time::interval(REPORT_INTERVAL);
        let mut batch = Vec::new();
        loop {
            let mut updates: HashMap<OrgId, Waiting> = HashMap::new();
            tokio::select! {
                received = inbox.recv_many(&mut batch, 4096) => if received == 0 { return },
                _ = reports.tick() => updates.extend(self.open.keys().map(|org| (*org, Waiting::new()))),
            }
            for message in batch.drain(..) {
                match message {
                    Message::Enter { org, quota, reply } => {
                        self.open.entry(org).or_insert(OrgStreams { count: 0, quota }).quota = quota;
                        updates.entry(org).or_default().push(reply);
                    }
                    Message::Released(org) => {
                        if let Some(open) = self.open.get_mut(&org) {
                            open.count = open.count.saturating_sub(1);
                            updates.entry(org).or_default();
                        }
                    }
                }
            }
            let claims = updates.iter().map(|(org, waiting)| {
                let requested = u32::try_from(waiting.len()).unwrap_or(u32::MAX);
                self.claim(*org, requested)
            });
            let granted = join_all(claims).await;
            for ((org, waiting), granted) in updates.into_iter().zip(granted) {
                self.reply(org, waiting, granted);
            }
        }
    }

    /// Reports the open streams of this process, and returns how many of the requested permits are granted.
    async fn claim(&self, org: OrgId, requested: u32) -> u32 {
        let Some(open) = self.open.get(&org) else { return 0 };
        let report_grace = if self.shared.processes() == 1 { Duration::ZERO } else { REPORT_GRACE };
        // The key does not contain the quota, because open streams still count after the quota has changed.
        let keys = LimitKeys::of(POLICY, &digest(POLICY, org.uuid().as_bytes(), NonZeroU32::MIN));
        let mut call = lua::LIMITS_CLAIM.prepare_invoke();
        call.key(&keys.counter)
            .key(&keys.whole)
            .arg(self.shared.process())
            .arg(open.count)
            .arg(requested)
            .arg(open.quota.get())
            .arg(report_grace.as_millis() as u64)
            .arg(LIVENESS_TIMEOUT.as_millis() as u64)
            .arg(u8::from(self.shared.has_seen_counters()));
        let granted = match self.shared.call(&call).await {
            Some(granted) => granted,
            None => {
                counter!(UNSHARED_LIMITS, "policy" => POLICY).increment(requested.into());
                let share = (open.quota.get() / self.shared.processes()).max(1);
                requested.min(share.saturating_sub(open.count))
            }
        };
        granted.min(requested)
    }

    fn reply(&mut self, org: OrgId, waiting: Waiting, granted: u32) {
        let Some(open) = self.open.get_mut(&org) else { return };
        open.count += granted;
        if open.count == 0 {
            self.open.remove(&org);
        }
        let mut permits = (0..granted).map(|_| StreamPermit { org, messages: self.messages.clone() });
        for reply in waiting {
            let permit = permits.next();
            if permit.is_none() {
                counter!(RATE_LIMITED, "policy" => POLICY).increment(1);
            }
            // If the caller has disconnected meanwhile, the permit is dropped here, which returns it.
            let _ = reply.send(permit);
        }
    }
}
