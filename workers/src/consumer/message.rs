//! A message of the outbox, as it comes out of a stream, and its records in PostgreSQL.
//!
//! Its outbox row and its inbox row decide who may do what with it, whatever Redis says: of everybody who was given
//! the message, a late owner among them, one commits an effect or gives it up, and the others find that out from
//! these rows, in the transaction that they would have done the same in.

use std::time::Duration;

use atrium_shared::{
    db::{DbError, OrgTx},
    ids::{MessageId, OrgId},
    messages::{OutboxEntry, OutboxMessage, StreamEntry as _},
    streams::Entry,
};
use serde_json::Value;

/// A message from the outbox.
#[derive(Clone)]
pub(crate) struct Message {
    pub(super) id: MessageId,
    pub(super) org: OrgId,
    outbox: i64,
    payload: Value,
}

impl Message {
    pub(crate) fn decode(entry: &Entry) -> Option<Self> {
        let OutboxEntry { message, org, outbox, payload } = OutboxEntry::from_fields(&entry.fields).ok()?;
        Some(Self { id: message, org, outbox, payload: serde_json::from_str(&payload).ok()? })
    }

    /// What it says, as the type that its topic has.
    pub(crate) fn read<M: OutboxMessage>(&self) -> Result<M, serde_json::Error> {
        M::deserialize(&self.payload)
    }

    pub(crate) fn org(&self) -> OrgId {
        self.org
    }

    /// Whether this consumer sees the message for the first time, and there is something to do. Not so when its row is
    /// gone, with its organization or long after it was done, as a copy of it in an older dump of Redis can find it;
    /// nor while it is a dead letter.
    pub(crate) async fn enter_inbox(&self, tx: &mut OrgTx, consumer: &str) -> Result<bool, DbError> {
        let entered = sqlx::query!(
            "INSERT INTO inbox (org_id, consumer, message_id)
             SELECT org_id, $3, message_id FROM outbox WHERE org_id = $1 AND id = $2 AND dead_at IS NULL
             ON CONFLICT DO NOTHING",
            self.org as OrgId,
            self.outbox,
            consumer
        )
        .execute(tx.conn())
        .await?;
        Ok(entered.rows_affected() == 1)
    }

    /// Whether a transaction that has entered the message in the inbox is still open, anybody's.
    ///
    /// Entering it once more would wait for that one's end; it waits for a moment instead, and is taken back.
    pub(super) async fn is_being_handled(&self, mut tx: OrgTx, consumer: &str) -> Result<bool, DbError> {
        sqlx::query!("SET LOCAL lock_timeout = '200ms'").execute(tx.conn()).await?;
        match self.enter_inbox(&mut tx, consumer).await {
            Ok(_) => Ok(false),
            Err(error) if error.is_lock_timeout() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Sets the only proof that the message is done. False: somebody gave it up meanwhile, and nothing of what was
    /// done here may last.
    pub(crate) async fn mark_consumed(&self, tx: &mut OrgTx) -> Result<bool, DbError> {
        let marked = sqlx::query!(
            "UPDATE outbox SET consumed_at = clock_timestamp()
              WHERE org_id = $1 AND id = $2 AND dead_at IS NULL",
            self.org as OrgId,
            self.outbox
        )
        .execute(tx.conn())
        .await?;
        if marked.rows_affected() == 1 {
            return Ok(true);
        }
        // It is gone when the effect was to delete the organization.
        Ok(sqlx::query_scalar!(
            r#"SELECT NOT EXISTS (SELECT FROM outbox WHERE org_id = $1 AND id = $2) AS "gone!""#,
            self.org as OrgId,
            self.outbox
        )
        .fetch_one(tx.conn())
        .await?)
    }

    /// Says that the message is still worked on, so that the sweeper does not take it for lost.
    pub(super) async fn renew(&self, tx: &mut OrgTx) -> Result<(), DbError> {
        sqlx::query!(
            "UPDATE outbox SET published_at = clock_timestamp()
              WHERE org_id = $1 AND id = $2 AND published_at IS NOT NULL AND consumed_at IS NULL AND dead_at IS NULL",
            self.org as OrgId,
            self.outbox
        )
        .execute(tx.conn())
        .await?;
        Ok(())
    }

    /// Adds the message once more, to be published after a pause. A message of its own rather than this one made
    /// available later: the relay may still be at this row, to note that it has published it, and would take the pause
    /// back. It is stored where a flush of Redis does not reach it, and in the transaction that marks this one as
    /// consumed, so there is one of them whoever dies.
    pub(super) async fn postpone(&self, tx: &mut OrgTx, pause: Duration) -> Result<(), DbError> {
        sqlx::query!(
            "INSERT INTO outbox (org_id, message_id, topic, aggregate_id, payload, available_at)
             SELECT org_id, $3, topic, aggregate_id, payload, clock_timestamp() + $4::bigint * interval '1 millisecond'
               FROM outbox WHERE org_id = $1 AND id = $2",
            self.org as OrgId,
            self.outbox,
            MessageId::new() as MessageId,
            i64::try_from(pause.as_millis()).unwrap_or(i64::MAX)
        )
        .execute(tx.conn())
        .await?;
        Ok(())
    }

    /// Why it was given up; none when it was not.
    pub(super) async fn dead_reason(&self, tx: &mut OrgTx) -> Result<Option<String>, DbError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT dead_reason AS "dead_reason!" FROM outbox
                WHERE org_id = $1 AND id = $2 AND dead_at IS NOT NULL"#,
            self.org as OrgId,
            self.outbox
        )
        .fetch_optional(tx.conn())
        .await?)
    }

    /// Makes a dead letter of it. False: somebody handled it meanwhile, or gave it up before.
    pub(crate) async fn mark_dead(&self, tx: &mut OrgTx, reason: &str) -> Result<bool, DbError> {
        let marked = sqlx::query!(
            "UPDATE outbox SET dead_at = clock_timestamp(), dead_reason = $3
              WHERE org_id = $1 AND id = $2 AND consumed_at IS NULL AND dead_at IS NULL",
            self.org as OrgId,
            self.outbox,
            reason
        )
        .execute(tx.conn())
        .await?;
        Ok(marked.rows_affected() == 1)
    }
}
