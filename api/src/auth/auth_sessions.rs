//! Sign-in sessions (`auth_session`): how one begins, is kept up by refresh tokens, and ends.
//!
//! Every statement runs in its user's transaction, behind the tenant wall; the lock on the session's row serializes
//! refreshes. A used token that is sent again within the grace period comes from a second tab, or from a client that
//! lost the response, and gets the newest token, which is the same for all of them. One that is sent later is a copy.
//! It is unknown which of the two holders is the thief, so the session ends for both, with every access token it has
//! issued.

use std::collections::HashMap;

use atrium_shared::{
    clock,
    db::UserTx,
    ids::{AuthSessionId, UserId},
    timings::REVOCATION_LIFETIME,
};
use time::OffsetDateTime;

use super::refresh_token::{Bytes32, RefreshToken};

/// How long a used token is accepted again.
const GRACE_SECONDS: i32 = 30;
/// A session ends so long after its last use,
const IDLE_HOURS: i32 = 30 * 24;
/// and so long after its start.
const MAX_HOURS: i32 = 180 * 24;

/// A token to hand out, and for how many seconds it is good.
pub(super) struct Issued {
    pub(super) token: RefreshToken,
    pub(super) seconds: u64,
}

/// What a presented token is.
pub(super) enum Presented {
    /// Unused until now; its successor.
    Rotated(Issued),
    /// Used a moment ago; the newest of its session.
    Repeated(Issued),
    /// Used before, or of a session in which that happened.
    Reused,
    /// Unknown, expired or signed out.
    Unknown,
}

/// Begins the session of a new sign-in.
pub(super) async fn begin(tx: &mut UserTx) -> Result<Issued, sqlx::Error> {
    let token = RefreshToken::first(tx.user(), AuthSessionId::new());
    forget_expired(tx).await?;
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

/// Takes a presented token. [`Presented::Reused`] is only found out here: [`end_reused`] acts on it.
pub(super) async fn rotate(tx: &mut UserTx, presented: RefreshToken) -> Result<Presented, sqlx::Error> {
    // Ids without a valid token lock no row. After the wait for the lock, the tokens are read in a second statement,
    // because only that sees the changes of the transaction before. `now()` would be the time before the wait.
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

    // The unused token has no salt; every other one leads to the next.
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
        Ok(Presented::Rotated(succeed(tx, &presented).await?))
    } else {
        Ok(Presented::Repeated(Issued { token: newest, seconds: seconds_until(expires_at) }))
    }
}

/// Replaces the unused token of a session that is locked.
async fn succeed(tx: &mut UserTx, used: &RefreshToken) -> Result<Issued, sqlx::Error> {
    let salt: Bytes32 = rand::random();
    // What the salts of earlier tokens were kept for is over.
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
    forget_expired(tx).await?;
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

/// Ends a session in which a used token was sent again, and records it, so that its access tokens are rejected from now
/// on. `false` if it had ended before.
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

/// Ends the session of a user who signs out, or all of their sessions. Returns those whose access tokens have to be
/// rejected.
pub(super) async fn end(
    tx: &mut UserTx,
    auth_session: AuthSessionId,
    everywhere: bool,
) -> Result<Vec<AuthSessionId>, sqlx::Error> {
    // Waits for a refresh that is running; the tokens that it issues are rejected with all the others.
    let ended = sqlx::query_scalar!(
        r#"DELETE FROM auth_sessions WHERE user_id = $1 AND (id = $2 OR $3) AND reused_at IS NULL
         RETURNING id AS "id: AuthSessionId""#,
        tx.user() as UserId,
        auth_session as AuthSessionId,
        everywhere
    )
    .fetch_all(tx.conn())
    .await?;
    // Revoked even if its row was deleted: its access tokens may still be valid.
    let mut revoked = vec![auth_session];
    revoked.extend(ended.into_iter().filter(|ended| *ended != auth_session));
    revoke(tx, &revoked).await?;
    Ok(revoked)
}

/// Refuses every access token of these sessions from now on.
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

/// Deletes expired sessions of the same user, because no role reads across users for it.
async fn forget_expired(tx: &mut UserTx) -> Result<(), sqlx::Error> {
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
    // Rounded: the moment was named a few milliseconds ago.
    u64::try_from((moment - clock::now()).as_seconds_f64().round() as i64).unwrap_or(0)
}
