//! Messages about configuration. They contain revisions, never values: processes read these behind the tenant wall.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{OutboxMessage, StreamEntry, Topic, entry::as_text};
use crate::ids::OrgId;

/// The organization of the message has a new revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionNotice {
    /// The revision.
    pub revision: i64,
}

impl OutboxMessage for RevisionNotice {
    const TOPIC: Topic = Topic::Config;
    type Aggregate = OrgId;
}

/// An entry of the live stream of configurations. Entries may be duplicated or out of order; readers use the highest
/// revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionEntry {
    /// The organization.
    pub org: OrgId,
    /// Its new revision.
    #[serde(with = "as_text")]
    pub revision: i64,
}

impl StreamEntry for RevisionEntry {}

/// Which revision of an organization's configuration a process applies, as it reports in Redis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedReport {
    /// The revision.
    pub revision: i64,
    /// Since when the process applies it.
    #[serde(with = "time::serde::rfc3339")]
    pub applied_at: OffsetDateTime,
}
