//! Chat sessions: one for each open window, and a limited number per user and project.

use std::{sync::Arc, time::Instant};

use atrium_shared::{
    configuration::SessionOverflow,
    db::{DbError, OrgTx},
    ids::{OrgId, ProjectId, SessionId, UserId},
    messages::{ChatAction, CloseReason, SessionClosed},
    tenancy::Role,
};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use crate::{
    http::{
        idempotency::IdempotentRequest,
        problem::{Code, Problem},
        request::Request,
        response::{self, Response},
    },
    live::session_cache::SessionKey,
    state::App,
};

/// A session that was opened.
#[derive(Serialize, JsonSchema)]
pub(super) struct Opened {
    id: SessionId,
    project_id: ProjectId,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    opened_at: OffsetDateTime,
    actions: Vec<ChatAction>,
    closed_session_id: Option<SessionId>,
}

/// `POST …/chat/sessions`: opens a session. At the limit, it closes the oldest if the configuration says so.
///
/// # Errors
/// [`Code::ChatSessionLimit`] at the limit, if the configuration says to reject new sessions.
pub async fn open(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let (org, project): (OrgId, ProjectId) = (request.path("org")?, request.path("project")?);
    request.no_fields().await?;
    let idempotent = IdempotentRequest::of(request).await?;
    let user = request.signed_in_user()?.id;

    let principal = request.principal()?;
    let checked_at = Instant::now();
    let mut tx = app.database.org_tx(&principal, org).await?;
    tx.require_writable(Role::Viewer)?;
    let snapshot = match app.configuration.held(org) {
        Some(snapshot) => snapshot,
        None => {
            // Loading takes a connection of its own. No request may wait for a second connection while it has one.
            drop(tx);
            let snapshot = app.configuration.org(org).await?;
            tx = app.database.org_tx(&principal, org).await?;
            snapshot
        }
    };
    if let Some(idempotent) = &idempotent
        && let Some(replayed) = idempotent.begin(&mut tx).await?
    {
        return Ok(replayed);
    }
    lock_member(&mut tx, project, user).await?;
    let configuration = snapshot.project(project);

    let mut ended = expire_sessions(&mut tx, project, user).await?;
    let open = open_sessions(&mut tx, project, user).await?;
    let others_allowed =
        usize::try_from(configuration.chat_max_active_sessions).unwrap_or(usize::MAX).max(1) - 1;
    let surplus = &open[..open.len().saturating_sub(others_allowed)];
    if !surplus.is_empty() && configuration.chat_session_overflow == SessionOverflow::Refuse {
        return Err(Problem::new(
            Code::ChatSessionLimit,
            format!(
                "Limit reached: {} open chat sessions per user in this project; close one first.",
                open.len()
            ),
        ));
    }
    for session in surplus {
        end(&mut tx, project, user, *session, CloseReason::Replaced).await?;
        ended.push(*session);
    }
    let id = SessionId::new();
    let opened_at = sqlx::query_scalar!(
        "INSERT INTO chat_sessions (org_id, id, project_id, user_id) VALUES ($1, $2, $3, $4) RETURNING opened_at",
        org as OrgId,
        id as SessionId,
        project as ProjectId,
        user as UserId
    )
    .fetch_one(tx.conn())
    .await?;
    let (role, closed_session_id) = (tx.role(), surplus.first().copied());
    let actions = configuration.chat_actions.clone();
    let opened = Opened { id, project_id: project, opened_at, actions, closed_session_id };
    let response = response::json(StatusCode::CREATED, &opened)?;
    if let Some(idempotent) = &idempotent {
        idempotent.record(&mut tx, &response).await?;
    }
    tx.commit().await?;

    ended.into_iter().for_each(|session| app.live.sessions.close(session));
    app.live.sessions.opened(SessionKey { org, project, session: id, user }, role, checked_at);
    Ok(response)
}

/// `DELETE …/chat/sessions/{session}`: closes a session of the caller. A session that is closed stays unchanged.
///
/// # Errors
/// [`Code::NotFound`] for a session that is not the caller's.
pub async fn close(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let (org, project): (OrgId, ProjectId) = (request.path("org")?, request.path("project")?);
    let session: SessionId = request.path("session")?;
    let user = request.signed_in_user()?.id;

    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    tx.require_live()?;
    let closed = end(&mut tx, project, user, session, CloseReason::Closed).await?;
    if !closed {
        let exists = sqlx::query_scalar!(
            r#"SELECT 1 AS "known!" FROM chat_sessions
              WHERE org_id = $1 AND id = $2 AND project_id = $3 AND user_id = $4"#,
            org as OrgId,
            session as SessionId,
            project as ProjectId,
            user as UserId
        )
        .fetch_optional(tx.conn())
        .await?;
        exists.ok_or_else(Problem::not_found)?;
    }
    tx.commit().await?;
    app.live.sessions.close(session);
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// Makes sure that the project exists, and locks the member's row. Requests of one member about sessions run one after
/// another, because the number of open sessions could otherwise change between its check and its use.
async fn lock_member(tx: &mut OrgTx, project: ProjectId, user: UserId) -> Result<(), DbError> {
    let org = tx.org();
    sqlx::query!(
        "SELECT FROM projects, members
          WHERE projects.org_id = $1 AND projects.id = $2 AND members.org_id = $1 AND members.user_id = $3
            FOR NO KEY UPDATE OF members",
        org as OrgId,
        project as ProjectId,
        user as UserId
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(())
}

/// Expires the member's sessions that no window has kept alive, and deletes those that ended more than a day ago. Done
/// in the user's own request, this needs no cross-tenant query. Returns the expired sessions. Their clients need no
/// notification, because no window is open.
async fn expire_sessions(
    tx: &mut OrgTx,
    project: ProjectId,
    user: UserId,
) -> Result<Vec<SessionId>, DbError> {
    let org = tx.org();
    sqlx::query!(
        "DELETE FROM chat_sessions
          WHERE org_id = $1 AND project_id = $2 AND user_id = $3 AND closed_at < now() - interval '1 day'",
        org as OrgId,
        project as ProjectId,
        user as UserId
    )
    .execute(tx.conn())
    .await?;
    Ok(sqlx::query_scalar!(
        r#"UPDATE chat_sessions SET closed_at = clock_timestamp(), close_reason = 'expired'
          WHERE org_id = $1 AND project_id = $2 AND user_id = $3 AND closed_at IS NULL
            AND last_seen_at < now() - interval '2 minutes'
      RETURNING id AS "id: SessionId""#,
        org as OrgId,
        project as ProjectId,
        user as UserId
    )
    .fetch_all(tx.conn())
    .await?)
}

/// The member's open sessions, the oldest first.
async fn open_sessions(tx: &mut OrgTx, project: ProjectId, user: UserId) -> Result<Vec<SessionId>, DbError> {
    let org = tx.org();
    Ok(sqlx::query_scalar!(
        r#"SELECT id AS "id: SessionId" FROM chat_sessions
          WHERE org_id = $1 AND project_id = $2 AND user_id = $3 AND closed_at IS NULL
          ORDER BY opened_at, id"#,
        org as OrgId,
        project as ProjectId,
        user as UserId
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Ends a session, and enqueues the notification of its client. Returns `false` when the session is not open.
async fn end(
    tx: &mut OrgTx,
    project: ProjectId,
    user: UserId,
    session: SessionId,
    reason: CloseReason,
) -> Result<bool, DbError> {
    let org = tx.org();
    let at = sqlx::query_scalar!(
        r#"UPDATE chat_sessions SET closed_at = clock_timestamp(), close_reason = $5
          WHERE org_id = $1 AND id = $2 AND project_id = $3 AND user_id = $4 AND closed_at IS NULL
      RETURNING closed_at AS "closed_at!""#,
        org as OrgId,
        session as SessionId,
        project as ProjectId,
        user as UserId,
        reason as CloseReason
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(at) = at else { return Ok(false) };
    let notice = SessionClosed { project_id: project, session_id: session, reason, at };
    tx.enqueue(project, &notice).await?;
    Ok(true)
}
