//! Times of the workers that depend on each other, and what must hold between them: a build in which it does not hold
//! fails here.

use std::time::Duration;

use atrium_shared::timings::{
    BLOCKING_READ, CONFIGURATION_RECONCILED_EVERY, CONFIGURATION_SILENT_AFTER, is_longer,
};

/// How long a relay's lease holds without being renewed. Every batch renews it.
pub(crate) const RELAY_LEASE: Duration = Duration::from_secs(4);
/// How long a message waits at most when the notification that announces it is lost. Also how often a lease is renewed
/// while there is nothing to publish.
pub(crate) const RELAY_POLL: Duration = Duration::from_millis(750);

/// How long a chat shard's lease holds without being renewed.
pub(crate) const CHAT_LEASE: Duration = Duration::from_secs(4);
/// How old a chat shard's lease becomes before it is renewed.
pub(crate) const CHAT_RENEWED_AFTER: Duration = Duration::from_secs(1);

/// How often a process says that it lives, and learns who else does.
pub(crate) const BEAT: Duration = Duration::from_secs(1);
/// How long it may take to say so.
pub(crate) const BEAT_LIMIT: Duration = Duration::from_secs(2);
/// A process that has not said that it lives for this long does not; and one that could not say so asks for nothing.
pub(crate) const SILENT_AFTER: Duration = Duration::from_secs(4);

/// A message without a heartbeat for longer belongs to somebody who died.
pub(crate) const CLAIM_AFTER: Duration = Duration::from_secs(5);
/// How often the idle time of every message in hand is reset.
pub(crate) const HEARTBEAT: Duration = Duration::from_nanos(CLAIM_AFTER.as_nanos() as u64 / 3);

/// How often the outbox is told of a try that takes long.
pub(crate) const RENEW_EVERY: Duration = Duration::from_secs(4);
/// A message that was published, or renewed, longer ago than this may be lost.
pub(crate) const SWEEP_AFTER: Duration = Duration::from_secs(5);

/// How long one statement of a purge may take: it is one transaction, however much there is.
pub(crate) const PURGE_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// A try that takes longer hangs, and with it a permit.
pub(crate) const MAX_TRY: Duration = Duration::from_secs(15 * 60);

/// Processes that hold an organization's configuration check every few seconds whether it still exists, and report in
/// Redis what they hold. After this time none does.
pub(crate) const FORGOTTEN_AFTER: Duration = Duration::from_secs(8);

/// A consumer with nothing pending asks for more once a second; one that is silent for this long is a process that
/// ended. Removed by mistake, it is in the group again with its next read.
pub(crate) const CONSUMER_SILENT_AFTER: Duration = Duration::from_secs(15);

// A lease is renewed three times before it ends, so that one slow renewal costs no hand-over.
const _: () = assert!(is_longer(RELAY_LEASE, 3, RELAY_POLL));
const _: () = assert!(is_longer(CHAT_LEASE, 3, CHAT_RENEWED_AFTER));
// Nobody is silent because of two lost beats, nor because of one that takes as long as its limit.
const _: () = assert!(is_longer(SILENT_AFTER, 3, BEAT));
const _: () = assert!(is_longer(SILENT_AFTER, 1, BEAT.saturating_add(BEAT_LIMIT)));
// A message in hand is claimed by nobody else because of one lost heartbeat.
const _: () = assert!(is_longer(CLAIM_AFTER, 2, HEARTBEAT));
// The sweeper does not count as lost what somebody still works on.
const _: () = assert!(is_longer(SWEEP_AFTER, 1, RENEW_EVERY));
// A try is longer than any of its statements may take.
const _: () = assert!(is_longer(MAX_TRY, 1, PURGE_TIMEOUT));
// A purge comes after every process has noticed that its organization is gone, and its last report has ended.
const _: () = assert!(is_longer(FORGOTTEN_AFTER, 1, CONFIGURATION_RECONCILED_EVERY));
const _: () = assert!(is_longer(FORGOTTEN_AFTER, 1, CONFIGURATION_SILENT_AFTER));
// A consumer that waits for messages reads many times before it counts as gone.
const _: () = assert!(is_longer(CONSUMER_SILENT_AFTER, 3, BLOCKING_READ));
