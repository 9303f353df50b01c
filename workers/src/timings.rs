//! Intervals and timeouts of the workers that depend on each other. The assertions at the end check the relations
//! between them at compile time.

use std::time::Duration;

use atrium_shared::timings::{
    BLOCKING_READ, CONFIGURATION_RECONCILE_INTERVAL, CONFIGURATION_REPORT_TIMEOUT, is_longer,
};

/// How long a relay's lease is valid without renewal. Every batch renews it.
pub(crate) const RELAY_LEASE: Duration = Duration::from_secs(4);
/// How often a shard polls the outbox: the longest time that a message waits when its notification is lost. An idle
/// relay renews its lease at the same interval.
pub(crate) const RELAY_POLL: Duration = Duration::from_millis(750);

/// How long a chat shard's lease is valid without renewal.
pub(crate) const CHAT_LEASE: Duration = Duration::from_secs(4);
/// The age at which the lease of a chat shard is renewed.
pub(crate) const CHAT_LEASE_RENEWAL: Duration = Duration::from_secs(1);

/// How often a process reports that it is alive and reads the list of live processes.
pub(crate) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// The timeout of one such report.
pub(crate) const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(2);
/// A process counts as dead when it has not reported for this long. A process whose reports fail for this long gives up
/// its shards.
pub(crate) const LIVENESS_TIMEOUT: Duration = Duration::from_secs(4);

/// Another worker claims an entry that has had no heartbeat for this long, because its consumer has probably died.
pub(crate) const CLAIM_AFTER: Duration = Duration::from_secs(5);
/// How often the idle time of every entry in progress is reset.
pub(crate) const ENTRY_HEARTBEAT_INTERVAL: Duration = Duration::from_nanos(CLAIM_AFTER.as_nanos() as u64 / 3);

/// How often the outbox row of a message is renewed while a long try runs.
pub(crate) const RENEW_INTERVAL: Duration = Duration::from_secs(4);
/// The sweeper checks messages that were published or renewed longer ago than this, because they may be lost.
pub(crate) const SWEEP_AFTER: Duration = Duration::from_secs(5);

/// The statement timeout of a purge, which removes all rows in one transaction.
pub(crate) const PURGE_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// A try that takes longer is aborted, because it is stuck and occupies a permit.
pub(crate) const TRY_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// How long a purge waits after the caches were invalidated. Processes that cache an organization's configuration check
/// every few seconds whether the organization still exists, and report in Redis which organizations they cache. After
/// this time no process caches it.
pub(crate) const PURGE_DELAY: Duration = Duration::from_secs(8);

/// A consumer without pending entries reads once a second; one that is silent for this long belongs to a process that
/// ended. A consumer that is removed too early rejoins the group with its next read.
pub(crate) const CONSUMER_TIMEOUT: Duration = Duration::from_secs(15);

// A lease is renewed three times before it expires, so that one slow renewal causes no handover.
const _: () = assert!(is_longer(RELAY_LEASE, 3, RELAY_POLL));
const _: () = assert!(is_longer(CHAT_LEASE, 3, CHAT_LEASE_RENEWAL));
// Neither two lost heartbeats nor one that takes as long as its timeout makes a process count as dead.
const _: () = assert!(is_longer(LIVENESS_TIMEOUT, 3, HEARTBEAT_INTERVAL));
const _: () = assert!(is_longer(LIVENESS_TIMEOUT, 1, HEARTBEAT_INTERVAL.saturating_add(HEARTBEAT_TIMEOUT)));
// One lost heartbeat does not cause an entry in progress to be claimed by another worker.
const _: () = assert!(is_longer(CLAIM_AFTER, 2, ENTRY_HEARTBEAT_INTERVAL));
// The sweeper does not treat a message as lost while a worker handles it.
const _: () = assert!(is_longer(SWEEP_AFTER, 1, RENEW_INTERVAL));
// The timeout of a try exceeds that of any of its statements.
const _: () = assert!(is_longer(TRY_TIMEOUT, 1, PURGE_TIMEOUT));
// A purge starts after every process has noticed the deletion and its last report has expired.
const _: () = assert!(is_longer(PURGE_DELAY, 1, CONFIGURATION_RECONCILE_INTERVAL));
const _: () = assert!(is_longer(PURGE_DELAY, 1, CONFIGURATION_REPORT_TIMEOUT));
// A consumer that waits for messages reads many times before it counts as ended.
const _: () = assert!(is_longer(CONSUMER_TIMEOUT, 3, BLOCKING_READ));
