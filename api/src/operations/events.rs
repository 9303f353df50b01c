//! An operation's progress as an event stream.
//!
//! The events are rows, numbered without gaps, so no event is lost when Redis is unavailable. A hint on the live stream
//! makes the event stream read the rows immediately. Without hints, it reads them once a second.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use atrium_shared::{
    db::{DbError, in_time},
    ids::{OrgId, SagaId, UserId},
    messages::{LiveEvent, OperationFailure},
    saga::{self, SagaEvent, SagaStatus, StepStatus},
};
use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use crate::{
    http::{
        problem::{Code, Problem},
        request::Request,
        response::Response,
    },
    live::{
        answer::{self, Next, Opening, Source},
        frame::Batch,
        hints::HintSubscription,
        open_streams::StreamKind,
        ring::ResetReason,
    },
    state::App,
};

/// The sequence number of the last event of a purge. The earlier events were purged too, so their number is unknown.
const PURGED_SEQ: i64 = 1_000_000_000;

#[derive(Serialize, JsonSchema)]
pub(super) struct StepEvent<'a> {
    operation_id: SagaId,
    seq: i64,
    step: &'a str,
    #[schemars(with = "StepStatus")]
    status: &'a str,
    detail: Option<&'a str>,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    at: OffsetDateTime,
}

impl LiveEvent for StepEvent<'_> {
    const NAME: &'static str = "operation.step";
}

#[derive(Serialize, JsonSchema)]
pub(super) struct FinishedEvent<'a> {
    operation_id: SagaId,
    seq: i64,
    #[schemars(with = "SagaStatus")]
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a OperationFailure>,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    at: OffsetDateTime,
}

impl LiveEvent for FinishedEvent<'_> {
    const NAME: &'static str = "operation.finished";
}

/// `GET /v1/operations/{operation}/events`.
///
/// # Errors
/// If the caller may not see the operation, or a quota is exceeded.
pub async fn stream(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    answer::retry_later(&request.headers, respond(app, request).await)
}

async fn respond(app: &Arc<App>, request: &Request) -> Result<Response, Problem> {
    let id: SagaId = request.path("operation")?;
    let options = answer::options(request)?;
    let resume = options.resume.number().map(Option::unwrap_or_default);
    let user = request.signed_in_user()?;

    let checked_at = Instant::now();
    let mut tx = match app.database.operation_tx(user.id, id).await {
        Err(DbError::NotFound) => {
            let end = purged(app, user.id, id).await?;
            return Ok(if resume.is_some_and(|seen| seen >= end.seq) {
                answer::no_content()
            } else {
                answer::single_event(&frame(id, &end, None).bytes)
            });
        }
        tx => tx?,
    };
    let org = tx.org();
    let saga = sqlx::query!(
        r#"SELECT sagas.status AS "status: SagaStatus", COALESCE(max(saga_events.seq), 0) AS "newest!"
           FROM sagas LEFT JOIN saga_events ON saga_events.org_id = sagas.org_id AND saga_events.saga_id = sagas.id
          WHERE sagas.org_id = $1 AND sagas.id = $2 GROUP BY sagas.status"#,
        org as OrgId,
        id as SagaId
    )
    .fetch_one(tx.conn())
    .await?;
    drop(tx);
    // All events of an operation are kept, so an unknown position is answered with all of them.
    let resume = resume.filter(|seen| *seen <= saga.newest);
    let seen = resume.unwrap_or_default();
    if seen == saga.newest && matches!(saga.status, SagaStatus::Committed | SagaStatus::Failed) {
        return Ok(answer::no_content());
    }
    let user_id = user.id;
    let permit = app.quotas.enter(org).await?;
    let mut first = vec![answer::position(Some(&seen))];
    if resume.is_none() {
        first.push(answer::reset(Some(&seen), ResetReason::HistoryLost));
    }
    let first = first.into_iter().map(|bytes| Framed { bytes, last: false }).collect::<Vec<_>>();
    let about = (org, None);
    let opening =
        Opening { kind: StreamKind::Operation, credential: user.into(), about, checked_at, permit, options };
    answer::open(&app.live.streams, opening, |registration| OperationSource {
        app: Arc::clone(app),
        user: user_id,
        id,
        seen,
        may_have_updates: false,
        reading: None,
        pending: first.into_iter(),
        _hints: app.live.hub.operations().subscribe(id, Arc::clone(registration.stream())),
    })
}

/// The result of a read: events after the last one seen, and why the operation failed, if it has.
struct Updates {
    events: Vec<SagaEvent>,
    failure: Option<OperationFailure>,
}

type Reading = Pin<Box<dyn Future<Output = Result<Updates, Problem>> + Send>>;

struct OperationSource {
    app: Arc<App>,
    user: UserId,
    id: SagaId,
    /// The last event that was read.
    seen: i64,
    /// Whether there may be events that were not read yet.
    may_have_updates: bool,
    reading: Option<Reading>,
    /// Events that were read but are not written yet.
    pending: std::vec::IntoIter<Framed>,
    _hints: HintSubscription<SagaId>,
}

/// An encoded event. The last one ends the stream.
struct Framed {
    bytes: bytes::Bytes,
    last: bool,
}

impl Source for OperationSource {
    fn poll(&mut self, context: &mut Context<'_>, updated: bool, batch: &mut Batch) -> Next {
        self.may_have_updates |= updated;
        loop {
            while !batch.is_full()
                && let Some(event) = self.pending.next()
            {
                batch.event(&event.bytes);
                if event.last {
                    return Next::End;
                }
            }
            if self.pending.len() > 0 || (self.reading.is_none() && !self.may_have_updates) {
                return Next::Open;
            }
            let reading = self.reading.get_or_insert_with(|| {
                // Reset before the read, so that a hint that arrives during it causes another read.
                self.may_have_updates = false;
                Box::pin(in_time(read(Arc::clone(&self.app), self.user, self.id, self.seen)))
            });
            let Poll::Ready(read) = reading.as_mut().poll(context) else {
                return Next::Open;
            };
            self.reading = None;
            match read {
                Ok(updates) => {
                    self.seen = updates.events.last().map_or(self.seen, |event| event.seq);
                    let framed: Vec<_> = updates
                        .events
                        .iter()
                        .map(|event| frame(self.id, event, updates.failure.as_ref()))
                        .collect();
                    self.pending = framed.into_iter();
                }
                // The next hint, or the next poll within a second, reads again.
                Err(problem) if problem.code() == Code::Unavailable => {
                    tracing::warn!(
                        cause = problem.internal_cause(),
                        "an operation cannot be read now; trying again"
                    );
                }
                // The membership has ended, or the organization was purged.
                Err(_) => return Next::End,
            }
        }
    }
}

fn frame(operation_id: SagaId, event: &SagaEvent, failure: Option<&OperationFailure>) -> Framed {
    let SagaEvent { seq, step, status, detail, at } = event;
    let (seq, at) = (*seq, *at);
    match step {
        Some(step) => {
            let data = StepEvent { operation_id, seq, step, status, detail: detail.as_deref(), at };
            Framed { bytes: answer::event(Some(&seq), &data), last: false }
        }
        None => {
            let data = FinishedEvent { operation_id, seq, status, failure, at };
            Framed { bytes: answer::event(Some(&seq), &data), last: true }
        }
    }
}

async fn read(app: Arc<App>, user: UserId, id: SagaId, after: i64) -> Result<Updates, Problem> {
    let mut tx = match app.database.operation_tx(user, id).await {
        Err(DbError::NotFound) => {
            let end = purged(&app, user, id).await?;
            return Ok(Updates { events: vec![end], failure: None });
        }
        tx => tx?,
    };
    let events = saga::events_after(&mut tx, id, after).await?;
    let failure = match events.last() {
        Some(last) if last.step.is_none() => saga::operation(&mut tx, id).await?.failure,
        _ => None,
    };
    Ok(Updates { events, failure })
}

/// The last event of a deletion whose saga was purged with its organization. Its number is greater than any before.
async fn purged(app: &App, user: UserId, id: SagaId) -> Result<SagaEvent, Problem> {
    let at = super::certificate(app, user, id).await?.purged_at;
    let status = SagaStatus::Committed.name().to_owned();
    Ok(SagaEvent { seq: PURGED_SEQ, step: None, status, detail: None, at })
}
