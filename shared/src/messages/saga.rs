//! Sagas: the message that wakes the engine, the hint that an operation has new events, and the results that the
//! workers store.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

use super::{OutboxMessage, StreamEntry, Topic};
use crate::ids::SagaId;

/// A saga has something to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaWake {
    /// Which one.
    pub saga: SagaId,
    /// Why it is woken.
    pub wake: WakeReason,
}

/// Why a saga is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr, VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum WakeReason {
    /// Its next step is due.
    Advance,
    /// Its deadline has passed.
    Deadline,
}

impl OutboxMessage for SagaWake {
    const TOPIC: Topic = Topic::Saga;
    type Aggregate = SagaId;
}

/// An entry of the live stream of operations. It does not name the organization, of which it could be the last trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationEntry {
    /// The operation with new events.
    pub operation: SagaId,
}

impl StreamEntry for OperationEntry {}

/// Why a saga is compensated, as the database keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperationFailure {
    /// The reason, for programs.
    pub code: String,
    /// The reason, for people.
    pub detail: String,
}

/// What remains of a purged organization, as the database keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeletionCertificate {
    /// How many rows each table held; tables without any are left out.
    pub rows_removed: BTreeMap<String, i64>,
    /// The search after the removal.
    pub search: DeletionSearch,
    /// What became of the organization's namespace in the cluster.
    pub namespaces: String,
}

/// What was searched for traces of an organization, and how many were found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeletionSearch {
    /// Tables that were searched.
    pub tables: usize,
    /// Rows that were found.
    pub rows_found: i64,
    /// Keys of Redis that were searched.
    pub redis_keys: u64,
    /// Traces that were found in Redis.
    pub redis_traces_found: u64,
}
