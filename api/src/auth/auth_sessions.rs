//! Sign-in sessions (`auth_session`): starting, refreshing and ending them.
//!
//! Every statement runs in its user's transaction, behind the tenant wall. The row lock of the session serializes
//! requests. A used token that is presented again within the grace period comes from a second tab, or from a client
//! that lost the response; it receives the newest token, which is the same for all of them. A used token that is
//! presented later is a copy. The server cannot distinguish the thief from the owner, so the session ends for both,
//! together with every access token it has issued.

use std::collections::HashMap;

use atrium_shared::{
    clock,
    db::UserTx,
    ids::{AuthSessionId, UserId},
    timings::REVOCATION_LIFETIME,
};
use time::OffsetDateTime;

use super::refresh_token::{Bytes32, RefreshToken};

/// How long a used token may be presented again.
const GRACE_SECONDS: i32 = 30;
/// A session expires this long after its last use.
const IDLE_HOURS: i32 = 30 * 24;
/// A session expires this long after its start, even if it is in use.
const MAX_HOURS: i32 = 180 * 24;

/// A token to send to the client, and how many seconds it is valid.
pub(super) struct Issued {
    pub(super) token: RefreshToken,
    pub(super) seconds: u64,
}

/// The state of a presented token.
pub(super) enum Presented {
    /// Unused until now. Carries its successor.
    Rotated(Issued),
    /// Used within the grace period. Carries the newest token of its session.
    Repeated(Issued),
    /// Used longer ago than the grace period, or part of a session that ended because of reuse.
    Reused,
    /// Unknown or expired, or its session was signed out.
    Unknown,
}

/// Starts the session of a new sign-in.
pub(super) async fn begin(tx: &mut UserTx) -> Result<Issued, sqlx::Error> {
    let token = RefreshToken::first(tx.user(), AuthSessionId::new());
    delete_expired(tx).await?;
    let expires_at = sqlx::query_scalar!(
        "INSERT INTO auth_sessions (user_id, id, expires_at)
         VALUES ($1, $2, clock_timestamp() + $3::int * interval '1 hour') RETURNING expires_at",
        token.user as UserId,
        token.auth_session as AuthSessionId,
        IDLE_HOURS
    )
    .fetch_one(tx.conn())
    .await?;
    insert(tx, token, expires_at).await
}

/// Exchanges a presented token. For [`Presented::Reused`] nothing is changed here; the caller then ends the session
/// with [`end_reused`].
pub(super) async fn rotate(tx: &mut UserTx, presented: RefreshToken) -> Result<Presented, sqlx::Error> {
    // The row is locked only for a valid token, so a caller that knows just the ids cannot block a session. The tokens
    // are read in a separate statement after the lock: only a new statement sees what the previous lock holder
    // committed. `now()` would be the time before the wait.
    let reused = sqlx::query_scalar!(
        r#"SELECT reused_at IS NOT NULL AS "reused!" FROM auth_sessions
          WHERE user_id = $1 AND id = $2
            AND EXISTS (SELECT FROM refresh_tokens
                         WHERE user_id = $1 AND auth_session_id = $2 AND hash = $3 AND expires_at > clock_timestamp())
            FOR UPDATE"#,
        presented.user as UserId,
        presented.auth_session as AuthSessionId,
        &presented.hash()[..]
    )
    .fetch_optional(tx.conn())
    .await?;
    match reused {
        None => return Ok(Presented::Unknown),
        Some(true) => return Ok(Presented::Reused),
        Some(false) => {}
    }

    // The unused token has no salt. The salt of every other token leads to its successor.
    let recent = sqlx::query!(
        r#"SELECT hash AS "hash: Bytes32", successor_salt AS "salt: Bytes32", expires_at
           FROM refresh_tokens
          WHERE user_id = $1 AND auth_session_id = $2
            AND (used_at IS NULL
                 OR (used_at > clock_timestamp() - $3::int * interval '1 second' AND successor_salt IS NOT NULL))"#,
        presented.user as UserId,
        presented.auth_session as AuthSessionId,
        GRACE_SECONDS
    )
    .fetch_all(tx.conn())
    .await?;
    let recent: HashMap<_, _> =
        recent.into_iter().map(|token| (token.hash, (token.salt, token.expires_at))).collect();
    let mut newest = presented.clone();
    let expires_at = loop {
        match recent.get(&newest.hash()) {
            Some((Some(salt), _)) => newest = newest.successor(salt),
            Some((None, expires_at)) => break *expires_at,
            None => return Ok(Presented::Reused),
        }
    };
    if newest == presented {
        Ok(Presented::Rotated(issue_successor(tx, &presented).await?))
    } else {
        Ok(Presented::Repeated(Issued { token: newest, seconds: seconds_until(expires_at) }))
    }
}

/// Replaces the unused token of a locked session with its successor.
async fn issue_successor(tx: &mut UserTx, used: &RefreshToken) -> Result<Issued, sqlx::Error> {
    let salt: Bytes32 = rand::random();
    // After the grace period, the salts of earlier tokens are no longer needed.
    sqlx::query!(
        "UPDATE refresh_tokens SET successor_salt = NULL
          WHERE user_id = $1 AND auth_session_id = $2 AND successor_salt IS NOT NULL
            AND used_at <= clock_timestamp() - $3::int * interval '1 second'",
        used.user as UserId,
        used.auth_session as AuthSessionId,
        GRACE_SECONDS
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "UPDATE refresh_tokens SET used_at = clock_timestamp(), successor_salt = $4
          WHERE user_id = $1 AND auth_session_id = $2 AND hash = $3",
        used.user as UserId,
        used.auth_session as AuthSessionId,
        &used.hash()[..],
        &salt[..]
    )
    .execute(tx.conn())
    .await?;
    let expires_at = sqlx::query_scalar!(
        "UPDATE auth_sessions
            SET expires_at = least(clock_timestamp() + $3::int * interval '1 hour',
                                    started_at + $4::int * interval '1 hour')
          WHERE user_id = $1 AND id = $2 RETURNING expires_at",
        used.user as UserId,
        used.auth_session as AuthSessionId,
        IDLE_HOURS,
        MAX_HOURS
    )
    .fetch_one(tx.conn())
    .await?;
    let issued = insert(tx, used.successor(&salt), expires_at).await?;
    delete_expired(tx).await?;
    Ok(issued)
}

async fn insert(
    tx: &mut UserTx,
    token: RefreshToken,
    expires_at: OffsetDateTime,
) -> Result<Issued, sqlx::Error> {
    sqlx::query!(
        "INSERT INTO refresh_tokens (user_id, auth_session_id, hash, expires_at) VALUES ($1, $2, $3, $4)",
        token.user as UserId,
        token.auth_session as AuthSessionId,
        &token.hash()[..],
        expires_at
    )
    .execute(tx.conn())
    .await?;
    Ok(Issued { token, seconds: seconds_until(expires_at) })
}

/// Ends a session in which a used token was presented again, and keeps its row as a record. The caller must reject its
/// access tokens from now on. Returns `false` when the session had been ended this way before.
pub(super) async fn end_reused(tx: &mut UserTx, auth_session: AuthSessionId) -> Result<bool, sqlx::Error> {
    let user = tx.user();
    let ended = sqlx::query!(
        "UPDATE auth_sessions SET reused_at = clock_timestamp()
          WHERE user_id = $1 AND id = $2 AND reused_at IS NULL",
        user as UserId,
        auth_session as AuthSessionId
    )
    .execute(tx.conn())
    .await?;
    if ended.rows_affected() == 0 {
        return Ok(false);
    }
    revoke(tx, &[auth_session]).await?;
    Ok(true)
}

/// Ends the session that signs out, or with `everywhere` all sessions of the user. Returns the sessions whose access
/// tokens must be rejected.
pub(super) async fn end(
    tx: &mut UserTx,
    auth_session: AuthSessionId,
    everywhere: bool,
) -> Result<Vec<AuthSessionId>, sqlx::Error> {
    // Waits for a concurrent refresh. The access token that it issues is rejected with all the others.
    let ended = sqlx::query_scalar!(
        r#"DELETE FROM auth_sessions WHERE user_id = $1 AND (id = $2 OR $3) AND reused_at IS NULL
         RETURNING id AS "id: AuthSessionId""#,
        tx.user() as UserId,
        auth_session as AuthSessionId,
        everywhere
    )
    .fetch_all(tx.conn())
    .await?;
    // Included even if its row no longer exists: its access tokens may still be valid.
    let mut revoked = vec![auth_session];
    revoked.extend(ended.into_iter().filter(|ended| *ended != auth_session));
    revoke(tx, &revoked).await?;
    Ok(revoked)
}

/// Stores that every access token of these sessions must be rejected from now on.
async fn revoke(tx: &mut UserTx, revoked: &[AuthSessionId]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO revoked_auth_sessions (auth_session_id, user_id, expires_at)
         SELECT id, $2, clock_timestamp() + $3 * interval '1 second' FROM unnest($1::uuid[]) AS id
         ON CONFLICT DO NOTHING",
        revoked as &[AuthSessionId],
        tx.user() as UserId,
        REVOCATION_LIFETIME.as_secs_f64()
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Deletes the user's expired tokens and sessions. No other job deletes them, because that would need a query across
/// users.
async fn delete_expired(tx: &mut UserTx) -> Result<(), sqlx::Error> {
    let user = tx.user();
    sqlx::query!(
        "DELETE FROM refresh_tokens WHERE user_id = $1 AND expires_at < clock_timestamp()",
        user as UserId
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "DELETE FROM auth_sessions WHERE user_id = $1 AND expires_at < clock_timestamp()",
        user as UserId
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

fn seconds_until(moment: OffsetDateTime) -> u64 {
    // Rounded, because the moment was computed a few milliseconds ago.
    u64::try_from((moment - clock::now()).as_seconds_f64().round() as i64).unwrap_or(0)
}
