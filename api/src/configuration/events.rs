//! Changes of an organization's configuration as an event stream: revisions, never values.
//!
//! The stream compares the revision that it sent last with the one that this process applies, so an event means that
//! the revision can be read from now on. Revisions that follow each other quickly may be combined into one event,
//! because each read returns the newest state.

use std::{sync::Arc, task::Context, time::Instant};

use atrium_shared::{configuration::ConfigurationStore, ids::OrgId, messages::LiveEvent};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    http::{problem::Problem, request::Request, response::Response},
    live::{
        answer::{self, Next, Opening, Source},
        frame::Batch,
        hints::HintSubscription,
        open_streams::StreamKind,
        ring::ResetReason,
    },
    state::App,
};

#[derive(Serialize, JsonSchema)]
pub(super) struct Changed {
    revision: i64,
}

impl LiveEvent for Changed {
    const NAME: &'static str = "config.changed";
}

/// `GET /v1/orgs/{org}/configs/events`.
///
/// # Errors
/// If the caller is no member, the organization is suspended or being deleted, or a quota is exceeded.
pub async fn stream(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    answer::retry_later(&request.headers, respond(app, request).await)
}

async fn respond(app: &Arc<App>, request: &Request) -> Result<Response, Problem> {
    let org: OrgId = request.path("org")?;
    let options = answer::options(request)?;
    let credential = request.caller()?.credential();

    let checked_at = Instant::now();
    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    tx.require_live()?;
    let newest = sqlx::query_scalar!("SELECT revision FROM config_heads WHERE org_id = $1", org as OrgId)
        .fetch_optional(tx.conn())
        .await?
        .unwrap_or_default();
    drop(tx);
    let (seen, is_lost) = match options.resume.number() {
        Some(seen) if seen.is_none_or(|seen| seen <= newest) => (seen, false),
        // Not an id of this stream, or one of a revision that a restore of the database has removed.
        _ => (None, true),
    };
    // From now on this process follows the organization's revisions.
    let applied = app.configuration.org(org).await?.revision();
    let permit = app.quotas.enter(org).await?;
    let about = (org, None);
    let opening = Opening { kind: StreamKind::Config, credential, about, checked_at, permit, options };
    answer::open(&app.live.streams, opening, |registration| ConfigSource {
        org,
        // The client may have read just before it connected: what is applied now is where it begins.
        sent: seen.unwrap_or(applied),
        started: false,
        is_lost,
        defaults: app.configuration.platform().revision(),
        configuration: app.configuration.clone(),
        _hints: app.live.hub.configurations().subscribe(org, Arc::clone(registration.stream())),
    })
}

struct ConfigSource {
    org: OrgId,
    /// The last revision that the client has seen.
    sent: i64,
    /// Whether the client's position was sent.
    started: bool,
    /// Whether the client's own position was unknown.
    is_lost: bool,
    defaults: i64,
    configuration: ConfigurationStore,
    _hints: HintSubscription<OrgId>,
}

impl Source for ConfigSource {
    fn poll(&mut self, _context: &mut Context<'_>, _updated: bool, batch: &mut Batch) -> Next {
        // A check costs one lock and two comparisons, so it runs at every poll, with or without a hint.
        let applied = self.configuration.held(self.org).map_or(0, |snapshot| snapshot.revision());
        if !std::mem::replace(&mut self.started, true) {
            batch.event(&answer::position(Some(&self.sent)));
            if self.is_lost {
                batch.event(&answer::reset(Some(&self.sent), ResetReason::HistoryLost));
            }
        }
        if applied > self.sent {
            self.sent = applied;
            batch.event(&answer::event(Some(&applied), &Changed { revision: applied }));
        }
        let defaults = self.configuration.platform().revision();
        if defaults > self.defaults {
            self.defaults = defaults;
            batch.event(&answer::reset(None, ResetReason::DefaultsChanged));
        }
        Next::Open
    }
}
