//! The chat: canned actions in a project, which every member sees immediately. Actions are counted, not stored.
//!
//! An action does not pass through the outbox: it is checked against cached state and added to a stream by one `XADD`,
//! and the chat worker publishes it. Sessions are rows in the database. Closing one passes through the outbox, so that
//! its client is notified even if a process crashes in between.

pub mod actions;
pub mod counters;
pub mod events;
pub mod sessions;

use atrium_shared::messages::{ActionEvent, ChatAction, CloseReason, SessionClosedEvent};

use crate::http::schema::{Component, component, event_component, received};

/// The request and response types of this module, for the test of the API description.
pub(crate) fn components() -> Vec<Component> {
    vec![
        received::<actions::ChatPress>("ChatPress"),
        component::<ChatAction>("ChatAction"),
        component::<sessions::Opened>("ChatSession"),
        component::<actions::Accepted>("ChatPressAccepted"),
        component::<counters::Counter>("ChatCounter"),
        component::<counters::Counters>("ChatCounters"),
        event_component::<ActionEvent>("ChatActionEvent"),
        component::<CloseReason>("ChatSessionCloseReason"),
        event_component::<SessionClosedEvent>("ChatSessionClosedEvent"),
    ]
}
