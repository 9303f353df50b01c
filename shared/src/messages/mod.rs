//! What one process writes and another reads: outbox payloads, stream entries, reports in Redis, the events that
//! browsers get, and JSON that workers store for the API. Each is a type here, and nothing else crosses a process.
//!
//! Different releases run at the same time during a rollout, and the outbox keeps messages of the previous one. Hence
//! the rule: a reader ignores unknown fields (no `deny_unknown_fields`), so adding one is safe; a new *required* field
//! comes in two releases, first optional for readers (expand), then required once no older writer is left (contract). A
//! field is removed in the reverse order. The closed lists inside messages ([`ChatAction`], [`CloseReason`],
//! [`WakeReason`]) grow in the same way: first every reader knows a new value, then writers use it.
//!
//! Each type has a golden file in `golden/`: what a release has written, which every later one must read. A golden
//! file may gain fields; one that the code no longer reads is a break.

mod chat;
mod configuration;
mod entry;
#[cfg(test)]
mod golden;
mod outbox;
mod saga;

use serde::Serialize;

pub use self::{
    chat::{
        ActionEntry, ActionEvent, ActionUser, ChatAction, CloseReason, LiveChatEntry, SessionClosed,
        SessionClosedEvent,
    },
    configuration::{AppliedReport, RevisionEntry, RevisionNotice},
    entry::{MalformedEntry, StreamEntry},
    outbox::{OutboxEntry, OutboxMessage, Topic},
    saga::{DeletionCertificate, DeletionSearch, OperationEntry, OperationFailure, SagaWake, WakeReason},
};

/// An event of a live stream, as browsers and services get it. Its name is the event's, its fields are the data.
pub trait LiveEvent: Serialize {
    /// The event's name.
    const NAME: &'static str;
}
