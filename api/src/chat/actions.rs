//! Pressing a canned action: all checks use cached state, then one `XADD` passes the action to the chat worker.
//!
//! The action is neither stored nor logged here. While Redis is unavailable, actions are rejected, not queued.

use std::{sync::Arc, time::Duration};

use atrium_shared::{
    clock,
    ids::{MessageId, OrgId, ProjectId, SessionId},
    messages::{ActionEntry, ChatAction, StreamEntry as _},
    streams::{Inbound, chat_shard},
    tenancy::Role,
    timings::is_longer,
};
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize as _, Serialize, de::value::StrDeserializer};
use time::OffsetDateTime;

use crate::{
    http::{
        body::one_of,
        problem::{Code, FieldError, Problem},
        request::Request,
        request_body::request_body,
        response::{self, Response},
    },
    live::{
        access::ENDED_ACCESS_RETENTION,
        session_cache::{SessionKey, SessionState},
    },
    state::App,
};

/// How long a session and its user's role may be used from the cache without a query.
const MAX_AGE: Duration = Duration::from_secs(30);

// An end of access is kept for longer than a cached session that was read before it may be used.
const _: () = assert!(is_longer(ENDED_ACCESS_RETENTION, 1, MAX_AGE));

request_body! {
    /// The action to press.
    pub(super) struct ChatPress {
        /// Parsed as a plain string, so that an unknown action gets the same response as one that the project does not
        /// offer.
        #[schemars(with = "ChatAction")]
        action: String = required(one_of("a string")),
    }
}

/// An action that was accepted.
#[derive(Serialize, JsonSchema)]
pub(super) struct Accepted {
    id: MessageId,
    action: ChatAction,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    at: OffsetDateTime,
}

/// `POST …/chat/sessions/{session}/actions`: presses an action.
///
/// # Errors
/// [`Code::ChatSessionClosed`], [`Code::ChatActionNotOffered`], [`Code::RateLimited`], [`Code::Unavailable`].
pub async fn press(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let (org, project): (OrgId, ProjectId) = (request.path("org")?, request.path("project")?);
    let session: SessionId = request.path("session")?;
    let user = request.signed_in_user()?;
    let (user, user_name) = (user.id, user.name.clone());

    let known = session_of(app, SessionKey { org, project, session, user }).await?;
    if known.role < Role::Member {
        return Err(Problem::forbidden(Role::Member));
    }
    if known.closed.is_some() {
        return Err(Problem::new(Code::ChatSessionClosed, "This chat session has ended; open a new one."));
    }
    let snapshot = app.configuration.org(org).await?;
    let configuration = snapshot.project(project);
    let status = app.rate_limits.chat_action(user, org, project, configuration.chat_actions_per_second)?;
    request.set_quota_status(status);
    app.quotas.count_member(org).await.inspect_err(|_| request.clear_quota_status())?;

    let ChatPress { action } = request.body().await?;
    let action = offered(&configuration.chat_actions, &action)?;

    let (id, at) = (MessageId::new(), now());
    let entry = ActionEntry { message: id, org, project, session, user, user_name, action, at };
    let fields = entry.to_fields().map_err(Problem::internal)?;
    // No MAXLEN: it would drop accepted actions that are not delivered yet.
    let stream = Inbound::Chat(chat_shard(project)).to_string();
    let added: Result<String, _> =
        redis::cmd("XADD").arg(stream).arg("*").arg(&fields[..]).query_async(&mut app.redis.shared()).await;
    added.map_err(Problem::unavailable)?;
    response::json(StatusCode::ACCEPTED, &Accepted { id, action, at })
}

/// The session, from the cache if it was read within [`MAX_AGE`]. A database read counts against the request rate
/// limit, so that a client cannot cause one for each guessed session id. Regular clients need one only for the first
/// action after a pause.
async fn session_of(app: &App, key: SessionKey) -> Result<SessionState, Problem> {
    match app.live.sessions.get(&key, MAX_AGE) {
        Some(known) => Ok(known),
        None => {
            app.rate_limits.request(key.user.uuid()).await?;
            Ok(app.live.sessions.read(&app.database, key).await?)
        }
    }
}

fn offered(actions: &[ChatAction], name: &str) -> Result<ChatAction, Problem> {
    let named = ChatAction::deserialize(StrDeserializer::<serde::de::value::Error>::new(name)).ok();
    named.filter(|action| actions.contains(action)).ok_or_else(|| {
        let names: Vec<_> = actions.iter().map(|action| action.name()).collect();
        Problem::new(
            Code::ChatActionNotOffered,
            "This project does not offer the action; `errors` lists those it does.",
        )
        .errors(vec![FieldError::body("/action", format!("must be one of {}", names.join(", ")))])
    })
}

/// The current time in milliseconds. Clocks of different processes do not agree to more digits.
fn now() -> OffsetDateTime {
    let now = clock::now();
    now.replace_millisecond(now.millisecond()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_offered_actions_are_accepted() {
        let actions = [ChatAction::Ready, ChatAction::TestsGreen];
        assert_eq!(offered(&actions, "tests_green").ok(), Some(ChatAction::TestsGreen));
        for name in ["rollback", "Ready", "ready ", "", "dance"] {
            let problem = offered(&actions, name).expect_err("it is not offered");
            assert_eq!(problem.code(), Code::ChatActionNotOffered, "{name}");
        }
    }

    #[test]
    fn now_has_no_digits_below_milliseconds() {
        assert_eq!(now().nanosecond() % 1_000_000, 0);
    }
}
