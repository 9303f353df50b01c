//! Messages of sagas: wake-ups of the engine, hints that an operation has changed, and results that workers store for
//! the API.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

use super::{OutboxMessage, StreamEntry, Topic};
use crate::ids::SagaId;

/// A saga has work to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaWake {
    /// The saga.
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

/// An entry of the live stream of operations. It does not contain the organization's id, because no trace of a purged
/// organization may remain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationEntry {
    /// The operation that has changed.
    pub operation: SagaId,
}

impl StreamEntry for OperationEntry {}

/// Why a saga is compensated, as the database stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperationFailure {
    /// The reason, for programs.
    pub code: String,
    /// The reason, for people.
    pub detail: String,
}

/// The certificate of a purged organization, as the database stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeletionCertificate {
    /// How many rows were deleted from each table; tables without rows are omitted.
    pub rows_removed: BTreeMap<String, i64>,
    /// The search after the deletion.
    pub search: DeletionSearch,
    /// What happened to the organization's namespace in the cluster.
    pub namespaces: String,
}

/// Where traces of an organization were searched for, and how many were found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeletionSearch {
    /// Tables that were searched.
    pub tables: usize,
    /// Rows that were found.
    pub rows_found: i64,
    /// Keys in Redis that were searched.
    pub redis_keys: u64,
    /// Traces that were found in Redis.
    pub redis_traces_found: u64,
}
