//! The lease of a relay shard: the right to publish it, for a few seconds at a time. It is a row in PostgreSQL, next to
//! the outbox.
//!
//! Its fencing token increases with every owner. A relay publishes while it has the row with its own token locked, so
//! no other relay can take the lease meanwhile. All times are PostgreSQL's, so the clocks of the relays do not matter.
//! If PostgreSQL's clock is set forward, leases expire early, which costs a handover. If it is set back, a lease would
//! last longer by that much, so a lease that expires later than a new one would counts as expired.

use sqlx::{PgPool, Postgres, Transaction};

use crate::timings::RELAY_LEASE;

pub(super) struct Lease {
    pool: PgPool,
    pub(super) shard: u16,
    pub(super) owner: String,
    /// The fencing token.
    pub(super) token: i64,
}

impl Lease {
    /// Takes the lease if it is free.
    pub(super) async fn acquire(pool: &PgPool, shard: u16, owner: &str) -> Result<Option<Self>, sqlx::Error> {
        // NOT EXISTS skips a lease that is taken, without waiting for its row, which a batch locks. With `owner = $2`,
        // this process owns the lease already, because the reply to an earlier try was lost.
        let token: Option<i64> = sqlx::query_scalar!(
            "INSERT INTO relay_leases AS lease (shard, owner, token, expires_at)
             SELECT $1, $2, 1, clock_timestamp() + $3 * interval '1 second'
              WHERE NOT EXISTS (SELECT FROM relay_leases WHERE shard = $1 AND owner <> $2
                                   AND expires_at BETWEEN clock_timestamp() AND clock_timestamp() + $3 * interval '1 second')
             ON CONFLICT ON CONSTRAINT relay_leases_pkey
             DO UPDATE SET owner = excluded.owner, token = lease.token + 1, expires_at = excluded.expires_at
              WHERE lease.owner = $2
                 OR lease.expires_at NOT BETWEEN clock_timestamp() AND clock_timestamp() + $3 * interval '1 second'
             RETURNING token",
            number(shard) as i32,
            owner,
            RELAY_LEASE.as_secs_f64()
        )
        .fetch_optional(pool)
        .await?;
        Ok(token.map(|token| Self { pool: pool.clone(), shard, owner: owner.to_owned(), token }))
    }

    /// Begins a transaction that locks and renews the lease. Returns `None` if this process no longer owns it.
    pub(super) async fn begin(&self) -> Result<Option<Transaction<'static, Postgres>>, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        let renewed = sqlx::query!(
            "UPDATE relay_leases SET expires_at = clock_timestamp() + $4 * interval '1 second'
              WHERE shard = $1 AND owner = $2 AND token = $3",
            number(self.shard) as i32,
            self.owner.as_str(),
            self.token,
            RELAY_LEASE.as_secs_f64()
        )
        .execute(&mut *tx)
        .await?;
        Ok((renewed.rows_affected() == 1).then_some(tx))
    }

    /// Takes a new token that is also higher than `seen`. Returns false if this process no longer owns the lease.
    ///
    /// There are two cases. If Redis did not reply, it may still run the script later, and the new token makes it
    /// reject that script. If Redis has seen a higher token than the lease's, PostgreSQL was restored from a backup.
    pub(super) async fn advance(&mut self, seen: i64) -> Result<bool, sqlx::Error> {
        let token: Option<i64> = sqlx::query_scalar!(
            "UPDATE relay_leases
                SET token = greatest(token, $4) + 1, expires_at = clock_timestamp() + $5 * interval '1 second'
              WHERE shard = $1 AND owner = $2 AND token = $3 RETURNING token",
            number(self.shard) as i32,
            self.owner.as_str(),
            self.token,
            seen,
            RELAY_LEASE.as_secs_f64()
        )
        .fetch_optional(&self.pool)
        .await?;
        self.token = token.unwrap_or(self.token);
        Ok(token.is_some())
    }

    /// Releases the lease, so that another relay can take it immediately. If this fails, the lease expires.
    pub(super) async fn release(self) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "UPDATE relay_leases SET expires_at = '-infinity' WHERE shard = $1 AND owner = $2 AND token = $3",
            number(self.shard) as i32,
            self.owner.as_str(),
            self.token
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

/// Converts a shard's number to PostgreSQL's type.
pub(super) fn number(shard: u16) -> i32 {
    i32::from(shard)
}
