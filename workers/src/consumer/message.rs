//! A message of the outbox, as it is read from a stream, and its records in PostgreSQL.
//!
//! The outbox row and the inbox row of a message decide how it is handled, not the state of Redis. A message may be
//! delivered to several consumers, one of which may be late. Exactly one of them commits its effect or gives it up, and
//! the others find that in these rows, in the transaction in which they would have done the same.

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

    /// Decodes the payload as the type that belongs to its topic.
    pub(crate) fn read<M: OutboxMessage>(&self) -> Result<M, serde_json::Error> {
        M::deserialize(&self.payload)
    }

    pub(crate) fn org(&self) -> OrgId {
        self.org
    }

    /// Whether this consumer enters the message in the inbox for the first time, so that it has to be handled. False if
    /// the outbox row does not exist: it was deleted with its organization, or long after the message was consumed, and
    /// this is a copy from an older dump of Redis. False also while the message is a dead letter.
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

    /// Whether any open transaction has entered the message in the inbox.
    ///
    /// A second insert would wait for that transaction to end. A short lock timeout limits the wait, and this
    /// transaction is rolled back either way.
    pub(super) async fn is_being_handled(&self, mut tx: OrgTx, consumer: &str) -> Result<bool, DbError> {
        sqlx::query!("SET LOCAL lock_timeout = '200ms'").execute(tx.conn()).await?;
        match self.enter_inbox(&mut tx, consumer).await {
            Ok(_) => Ok(false),
            Err(error) if error.is_lock_timeout() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Marks the message as consumed, which is the only proof that it is done. Returns false if it became a dead letter
    /// meanwhile; the transaction must then be rolled back.
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
        // The row does not exist if the effect was to delete the organization.
        Ok(sqlx::query_scalar!(
            r#"SELECT NOT EXISTS (SELECT FROM outbox WHERE org_id = $1 AND id = $2) AS "gone!""#,
            self.org as OrgId,
            self.outbox
        )
        .fetch_one(tx.conn())
        .await?)
    }

    /// Records that the message is still being handled, so that the sweeper does not treat it as lost.
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

    /// Adds a copy of the message, to be published after a pause. It is a new row, because the relay may be about to
    /// mark this one as published, which would cancel the pause. Because the copy is in PostgreSQL, it survives a flush
    /// of Redis. It is written in the transaction that consumes this message, so exactly one of the two remains after a
    /// crash.
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

    /// The reason that the message is a dead letter, or `None` if it is not one.
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

    /// Marks the message as a dead letter. Returns false if it was consumed meanwhile, or is one already.
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
