//! Sagas: what wakes the engine, and the hint that an operation has news.

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
    /// The operation with news.
    pub operation: SagaId,
}

impl StreamEntry for OperationEntry {}
