//! Messages of the chat: actions sent to the worker, ends of sessions, and the events sent to browsers.

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};
use time::OffsetDateTime;

use super::{LiveEvent, OutboxMessage, StreamEntry, Topic};
use crate::ids::{MessageId, OrgId, ProjectId, SessionId, UserId};

/// A canned action of the chat. There is no free text.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ChatAction {
    /// 👍
    ThumbsUp,
    /// 👎
    ThumbsDown,
    /// Ready.
    Ready,
    /// Blocked.
    Blocked,
    /// In review.
    InReview,
    /// Deployed.
    Deployed,
    /// Tests green.
    TestsGreen,
    /// Rollback.
    Rollback,
}

impl ChatAction {
    /// The name, as in JSON and in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Why a chat session ended.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    sqlx::Type,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum CloseReason {
    /// Its user opened more sessions than allowed.
    Replaced,
    /// Its user closed it.
    Closed,
    /// No window has shown it for two minutes.
    Expired,
}

/// An action as the API adds it to its shard's inbound stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionEntry {
    /// The action's id.
    pub message: MessageId,
    /// The organization.
    pub org: OrgId,
    /// The project.
    pub project: ProjectId,
    /// The window it was pressed in.
    pub session: SessionId,
    /// The user who pressed it.
    pub user: UserId,
    /// Their public name.
    pub user_name: String,
    /// What was pressed.
    pub action: ChatAction,
    /// When it was accepted.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

impl StreamEntry for ActionEntry {}

/// The end of a session, as the outbox delivers it to the chat worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionClosed {
    /// The project.
    pub project_id: ProjectId,
    /// The session.
    pub session_id: SessionId,
    /// Why it ended.
    pub reason: CloseReason,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

impl OutboxMessage for SessionClosed {
    const TOPIC: Topic = Topic::Chat;
    type Aggregate = ProjectId;
}

/// An event as the chat worker adds it to its shard's live stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveChatEntry {
    /// The epoch of the live stream. The field has a name of one letter, because it is in every entry.
    #[serde(rename = "e")]
    pub epoch: String,
    /// The organization.
    pub org: OrgId,
    /// The project.
    pub project: ProjectId,
    /// The event's name. It is text, not a closed list, because a process also forwards events of a newer release.
    pub event: String,
    /// The session that caused the event, or that ended.
    pub session: SessionId,
    /// The event's data for browsers, JSON.
    pub data: String,
}

impl StreamEntry for LiveChatEntry {}

/// The event that browsers receive for an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ActionEvent {
    /// The action's id.
    pub id: MessageId,
    /// The project.
    pub project_id: ProjectId,
    /// The window it was pressed in.
    pub session_id: SessionId,
    /// The user who pressed it.
    pub user: ActionUser,
    /// What was pressed.
    pub action: ChatAction,
    /// When it was accepted.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: OffsetDateTime,
}

impl LiveEvent for ActionEvent {
    const NAME: &'static str = "chat.action";
}

/// The user who pressed an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ActionUser {
    /// The user.
    pub id: UserId,
    /// The public name.
    pub name: String,
}

/// The event that browsers receive when a session ends; the last event of that session's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SessionClosedEvent {
    /// The session.
    pub session_id: SessionId,
    /// Why it ended.
    pub reason: CloseReason,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: OffsetDateTime,
}

impl LiveEvent for SessionClosedEvent {
    const NAME: &'static str = "chat.session-closed";
}
