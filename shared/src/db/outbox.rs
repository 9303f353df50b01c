//! The outbox's writing side. The reading side is the relay, which has a role of its own.

use std::time::Duration;

use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use super::DbError;
use crate::ids::{MessageId, OrgId};

/// What a message is for; decides which stream it goes to and which worker consumes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Topic {
    /// A saga has something to do.
    Saga,
    /// An organization's configuration has a new revision.
    Config,
    /// Something to tell in a project's chat that must not be lost, such as a session's end.
    Chat,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Saga, Self::Config, Self::Chat];

    /// The name, as in SQL, stream names and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Saga => "saga",
            Self::Config => "config",
            Self::Chat => "chat",
        }
    }
}

pub(super) async fn insert(
    connection: &mut PgConnection,
    org: OrgId,
    topic: Topic,
    aggregate: Uuid,
    payload: &impl Serialize,
    delay: Option<Duration>,
) -> Result<MessageId, DbError> {
    let message = MessageId::new();
    sqlx::query(
        "INSERT INTO outbox (org_id, message_id, topic, aggregate_id, payload, available_at)
         VALUES ($1, $2, $3, $4, $5, clock_timestamp() + $6::bigint * interval '1 millisecond')",
    )
    .bind(org)
    .bind(message)
    .bind(topic)
    .bind(aggregate)
    .bind(sqlx::types::Json(payload))
    .bind(delay.map(|delay| i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)))
    .execute(connection)
    .await?;
    Ok(message)
}
