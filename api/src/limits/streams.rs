//! How many event streams an organization has open, over all processes.
//!
//! Redis keeps a hash for each organization: process → how many it holds, and when it said so. One task of this
//! process does all the asking, in batches, one call for each organization with news; a script compares and grants, so
//! two processes that ask for the last permit get it once. Permits that were given back are simply not in the number
//! that the next call carries. Every process says its numbers again every two seconds: so those of one that was killed
//! are forgotten after ten, and what a flush lost is there again after two. Until then nobody gets a permit, unless one
//! process is all there is, which knows its numbers; while Redis is unavailable, each process gives its share.

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

/// How often a process says its numbers again.
const AGAIN: Duration = Duration::from_secs(2);
/// A process that has not said its number for this long has no streams.
const SILENT_AFTER: Duration = Duration::from_secs(10);
/// After a flush, all processes have said their numbers again within this time.
const SAID_AGAIN_AFTER: Duration = Duration::from_secs(4);
const POLICY: &str = "streams";

// Nobody's streams are forgotten because two numbers were lost.
const _: () = assert!(is_longer(SILENT_AFTER, 3, AGAIN));
// After a flush, every process says its numbers in time, and before any of them counts as silent.
const _: () = assert!(is_longer(SAID_AGAIN_AFTER, 1, AGAIN));
const _: () = assert!(is_longer(SILENT_AFTER, 1, SAID_AGAIN_AFTER));

/// The permits of open streams. Cheap to clone.
#[derive(Clone)]
pub struct StreamQuotas {
    messages: mpsc::UnboundedSender<Message>,
}

enum Message {
    Enter { org: OrgId, quota: NonZeroU32, answer: oneshot::Sender<Option<StreamPermit>> },
    Left(OrgId),
}

/// Counts as one of an organization's open streams until it is dropped.
pub struct StreamPermit {
    org: OrgId,
    messages: mpsc::UnboundedSender<Message>,
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        // When the process ends, nobody counts.
        let _ = self.messages.send(Message::Left(self.org));
    }
}

impl StreamQuotas {
    /// The quotas, and the task that asks for permits until `stop`.
    pub fn new(
        shared: Arc<Shared>,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = anyhow::Result<()>> + Send) {
        let (messages, inbox) = mpsc::unbounded_channel();
        let keeper = Keeper { shared, messages: messages.clone(), held: HashMap::new() };
        (Self { messages }, async move {
            stop.run_until_cancelled(keeper.keep(inbox)).await;
            Ok(())
        })
    }

    /// A permit, or none when the organization has as many streams open as its quota allows.
    pub async fn enter(&self, org: OrgId, quota: NonZeroU32) -> Option<StreamPermit> {
        let (answer, permit) = oneshot::channel();
        self.messages.send(Message::Enter { org, quota, answer }).ok()?;
        permit.await.ok().flatten()
    }
}

struct Keeper {
    shared: Arc<Shared>,
    messages: mpsc::UnboundedSender<Message>,
    held: HashMap<OrgId, Held>,
}

/// What this process holds of one organization.
struct Held {
    count: u32,
    quota: NonZeroU32,
}

/// Who waits for permits of an organization; nobody, when all the news is what this process holds.
type Waiting = Vec<oneshot::Sender<Option<StreamPermit>>>;

impl Keeper {
    async fn keep(mut self, mut inbox: mpsc::UnboundedReceiver<Message>) {
        let mut again = tokio::time::interval(AGAIN);
        let mut batch = Vec::new();
        loop {
            let mut news: HashMap<OrgId, Waiting> = HashMap::new();
            tokio::select! {
                received = inbox.recv_many(&mut batch, 4096) => if received == 0 { return },
                _ = again.tick() => news.extend(self.held.keys().map(|org| (*org, Waiting::new()))),
            }
            for message in batch.drain(..) {
                match message {
                    Message::Enter { org, quota, answer } => {
                        self.held.entry(org).or_insert(Held { count: 0, quota }).quota = quota;
                        news.entry(org).or_default().push(answer);
                    }
                    Message::Left(org) => {
                        if let Some(held) = self.held.get_mut(&org) {
                            held.count = held.count.saturating_sub(1);
                            news.entry(org).or_default();
                        }
                    }
                }
            }
            let claims = news.iter().map(|(org, waiting)| {
                let wanted = u32::try_from(waiting.len()).unwrap_or(u32::MAX);
                self.claim(*org, wanted)
            });
            let granted = join_all(claims).await;
            for ((org, waiting), granted) in news.into_iter().zip(granted) {
                self.answer(org, waiting, granted);
            }
        }
    }

    /// Says what this process holds, and how many more of those it wants it gets.
    async fn claim(&self, org: OrgId, wanted: u32) -> u32 {
        let Some(held) = self.held.get(&org) else { return 0 };
        let said_again_after = if self.shared.processes() == 1 { Duration::ZERO } else { SAID_AGAIN_AFTER };
        // Named without the quota: streams are open whatever it becomes.
        let keys = LimitKeys::of(POLICY, &digest(POLICY, org.uuid().as_bytes(), NonZeroU32::MIN));
        let mut call = lua::LIMITS_CLAIM.prepare_invoke();
        call.key(&keys.counter)
            .key(&keys.whole)
            .arg(self.shared.process())
            .arg(held.count)
            .arg(wanted)
            .arg(held.quota.get())
            .arg(said_again_after.as_millis() as u64)
            .arg(SILENT_AFTER.as_millis() as u64)
            .arg(u8::from(self.shared.seen()));
        let granted = match self.shared.call(&call).await {
            Some(granted) => granted,
            None => {
                counter!(UNSHARED_LIMITS, "policy" => POLICY).increment(wanted.into());
                let share = (held.quota.get() / self.shared.processes()).max(1);
                wanted.min(share.saturating_sub(held.count))
            }
        };
        granted.min(wanted)
    }

    fn answer(&mut self, org: OrgId, waiting: Waiting, granted: u32) {
        let Some(held) = self.held.get_mut(&org) else { return };
        held.count += granted;
        if held.count == 0 {
            self.held.remove(&org);
        }
        let mut permits = (0..granted).map(|_| StreamPermit { org, messages: self.messages.clone() });
        for answer in waiting {
            let permit = permits.next();
            if permit.is_none() {
                counter!(RATE_LIMITED, "policy" => POLICY).increment(1);
            }
            // Who has gone in the meantime drops the permit, which gives it back.
            let _ = answer.send(permit);
        }
    }
}
