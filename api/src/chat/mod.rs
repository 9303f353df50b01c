//! The chat: canned actions in a project, seen by everybody at once. What is said is never stored.
//!
//! An action takes the short path: checks from memory, one `XADD`, and the chat worker publishes it. Sessions are rows,
//! and their ends go through the outbox, so that the window concerned is told whatever dies on the way.

pub mod actions;
pub mod counters;
pub mod events;
pub mod sessions;

use atrium_shared::messages::{ActionEvent, ChatAction, SessionClosedEvent};

use crate::http::schema::{Component, component, event_component, received};

/// What this module reads and sends, for the test of the API description.
pub(crate) fn components() -> Vec<Component> {
    vec![
        received::<actions::ChatPress>("ChatPress"),
        component::<ChatAction>("ChatAction"),
        component::<sessions::Opened>("ChatSession"),
        component::<actions::Accepted>("ChatPressAccepted"),
        component::<counters::Counters>("ChatCounters"),
        event_component::<ActionEvent>("ChatActionEvent"),
        event_component::<SessionClosedEvent>("ChatSessionClosedEvent"),
    ]
}
