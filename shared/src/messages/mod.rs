//! Everything that one process writes and another reads: outbox payloads, stream entries, reports in Redis, the events
//! sent to browsers, and JSON that workers store for the API. Processes exchange only the types of this module.
//!
//! During a rollout two releases run concurrently, and the outbox contains messages of the previous one. So a reader
//! ignores unknown fields (no `deny_unknown_fields`), which makes adding a field safe. A new *required* field takes two
//! releases: first it is optional for readers (expand), and once no older writer runs it becomes required (contract).
//! Removing a field takes the same steps in reverse order. The closed lists inside messages ([`ChatAction`],
//! [`CloseReason`], [`WakeReason`]) grow in the same way: first every reader accepts a new value, then writers use it.
//!
//! Each type has a golden file in `golden/`, written by one release, that every later release must read. A golden file
//! may gain fields. A golden file that the code no longer reads means that compatibility is broken.

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

/// An event of a live stream, as browsers and services receive it. The type's fields are the event's data.
pub trait LiveEvent: Serialize {
    /// The event's name.
    const NAME: &'static str;
}
