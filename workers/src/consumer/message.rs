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

    /// Whether this consumer sees the message for the first time, and there is something to do. False when the outbox
    /// row is gone: it was deleted with its organization, or long after the message was consumed, and this is a copy
    /// from an older dump of Redis. False also while the message is a dead letter.
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

    /// Marks the message as consumed, which is the only proof that it is done. False: it became a dead letter
    /// meanwhile, and this transaction must be rolled back.
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
    /// mark this one as published, which would undo the pause. The copy is in PostgreSQL, so it survives a flush of
    /// Redis; and it is written in the transaction that consumes this one, so exactly one of them remains after a crash.
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

    /// Why it is a dead letter; none when it is not.
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

    /// Makes it a dead letter. False: it was consumed meanwhile, or is a dead letter already.
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
