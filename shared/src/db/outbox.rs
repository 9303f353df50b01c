//! The outbox's writing side. The reading side is the relay, which has a role of its own.

use std::time::Duration;

use serde::Serialize;
use sqlx::{PgConnection, types::Json};
use strum::{EnumCount, IntoStaticStr, VariantArray};
use uuid::Uuid;

use super::DbError;
use crate::ids::{MessageId, OrgId};

/// What a message is for; decides which stream it goes to and which worker consumes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, sqlx::Type, EnumCount, IntoStaticStr, VariantArray)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
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
    pub const ALL: [Self; Self::COUNT] = match Self::VARIANTS.first_chunk() {
        Some(all) => *all,
        None => unreachable!(),
    };

    /// The name, as in SQL, stream names and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// A message that is to be sent.
pub(super) struct Outgoing<'a, P> {
    pub(super) id: MessageId,
    payload: Json<&'a P>,
    /// None: at once.
    delay: Option<Duration>,
}

impl<'a, P> Outgoing<'a, P> {
    pub(super) fn new(payload: &'a P, delay: Option<Duration>) -> Self {
        Self { id: MessageId::new(), payload: Json(payload), delay }
    }

    pub(super) fn is_due(&self) -> bool {
        self.delay.is_none()
    }

    fn delay_in_milliseconds(&self) -> Option<i64> {
        self.delay.map(|delay| i64::try_from(delay.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Adds messages about one aggregate, in this order, with one statement.
pub(super) async fn insert<P: Serialize + Sync>(
    connection: &mut PgConnection,
    org: OrgId,
    topic: Topic,
    aggregate: Uuid,
    messages: &[Outgoing<'_, P>],
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO outbox (org_id, message_id, topic, aggregate_id, payload, available_at)
         SELECT $1, message.id, $2, $3, message.payload, clock_timestamp() + message.delay * interval '1 millisecond'
           FROM unnest($4::uuid[], $5::jsonb[], $6::bigint[]) WITH ORDINALITY AS message (id, payload, delay, nth)
          ORDER BY message.nth",
    )
    .bind(org)
    .bind(topic)
    .bind(aggregate)
    .bind(messages.iter().map(|message| message.id.uuid()).collect::<Vec<_>>())
    .bind(messages.iter().map(|message| message.payload).collect::<Vec<_>>())
    .bind(messages.iter().map(Outgoing::delay_in_milliseconds).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}
