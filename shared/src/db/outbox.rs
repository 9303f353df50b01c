//! Writing to the outbox. Only the relay reads it, with its own database role.

use std::time::Duration;

use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::DbError;
use crate::{
    ids::{MessageId, OrgId},
    messages::{OutboxMessage, Topic},
};

/// A message to send.
pub(super) struct Outgoing<'a, P> {
    pub(super) id: MessageId,
    payload: Json<&'a P>,
    /// None: it is sent immediately.
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
pub(super) async fn insert<M: OutboxMessage>(
    connection: &mut PgConnection,
    org: OrgId,
    aggregate: Uuid,
    messages: &[Outgoing<'_, M>],
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO outbox (org_id, message_id, topic, aggregate_id, payload, available_at)
         SELECT $1, message.id, $2, $3, message.payload, clock_timestamp() + message.delay * interval '1 millisecond'
           FROM unnest($4::uuid[], $5::jsonb[], $6::bigint[]) WITH ORDINALITY AS message (id, payload, delay, nth)
          ORDER BY message.nth",
        org as OrgId,
        M::TOPIC as Topic,
        aggregate,
        &messages.iter().map(|message| message.id.uuid()).collect::<Vec<_>>()[..],
        messages.iter().map(|message| message.payload).collect::<Vec<_>>() as Vec<Json<&M>>,
        messages.iter().map(Outgoing::delay_in_milliseconds).collect::<Vec<_>>() as Vec<Option<i64>>
    )
    .execute(connection)
    .await?;
    Ok(())
}
