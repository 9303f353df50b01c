//! Changes of an organization's configuration as an event stream: revisions, never values.
//!
//! The stream compares the revision it told last with the one this process applies: an event means that whoever asks
//! this API now sees it. Revisions that follow each other quickly may be told as one, since each reading shows all.

use std::{sync::Arc, task::Context, time::Instant};

use atrium_shared::{configuration::ConfigurationStore, ids::OrgId, messages::LiveEvent};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    http::{problem::Problem, request::Request, response::Response},
    live::{
        answer::{self, Next, Source},
        frame::Batch,
        hints::Listening,
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
/// [`Code::LastEventIdInvalid`](crate::http::problem::Code::LastEventIdInvalid) for what is no revision of this
/// organization.
pub async fn stream(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    answer::try_again(respond(app, request).await)
}

async fn respond(app: &Arc<App>, request: &Request) -> Result<Response, Problem> {
    let org: OrgId = request.path("org")?;
    let seen = answer::last_event_id(request)?.map(|id| answer::number(&id)).transpose()?;
    let credential = request.caller()?.credential();

    let checked_at = Instant::now();
    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    tx.require_live()?;
    let newest = sqlx::query_scalar!("SELECT revision FROM config_heads WHERE org_id = $1", org as OrgId)
        .fetch_optional(tx.conn())
        .await?
        .unwrap_or_default();
    drop(tx);
    if seen.is_some_and(|seen| seen > newest) {
        return Err(answer::last_event_id_invalid());
    }
    // From now on this process follows the organization's revisions.
    let applied = app.configuration.org(org).await?.revision();
    let permit = app.quotas.enter(org).await?;
    Ok(answer::open(
        &app.live.streams,
        StreamKind::Config,
        credential,
        (org, None),
        checked_at,
        permit,
        |registration| {
            ConfigSource {
                org,
                told: seen,
                // The client may have read just before it came: what is applied now is where it begins.
                begin: applied,
                defaults: app.configuration.platform().revision(),
                configuration: app.configuration.clone(),
                _listening: app.live.hub.configurations().listen(org, Arc::clone(registration.stream())),
            }
        },
    ))
}

struct ConfigSource {
    org: OrgId,
    /// The last revision the client knows of; none before the first comparison.
    told: Option<i64>,
    begin: i64,
    defaults: i64,
    configuration: ConfigurationStore,
    _listening: Listening<OrgId>,
}

impl Source for ConfigSource {
    fn poll(&mut self, _context: &mut Context<'_>, _news: bool, batch: &mut Batch) -> Next {
        // Looking costs a lock and two comparisons, so there is no need to be told first.
        let applied = self.configuration.held(self.org).map_or(0, |snapshot| snapshot.revision());
        let told = *self.told.get_or_insert_with(|| {
            batch.position(&self.begin);
            self.begin
        });
        if applied > told {
            self.told = Some(applied);
            batch.event(&answer::event(Some(&applied), &Changed { revision: applied }));
        }
        let defaults = self.configuration.platform().revision();
        if defaults > self.defaults {
            self.defaults = defaults;
            batch.event(&answer::event(None, &answer::Reset { reason: ResetReason::DefaultsChanged }));
        }
        Next::Open
    }
}
