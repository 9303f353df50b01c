//! Configuration over REST: the effective values of an organization or one of its projects, and their changes.
//!
//! Responses are read from PostgreSQL in the caller's transaction, not from this process's snapshot, because a caller
//! must see their own change, whichever process serves the next request.

pub mod change;
pub mod events;
pub mod history;
mod layers;
pub mod read;
pub mod status;

use atrium_shared::{
    configuration::{
        HistoryAction, Source, Values,
        catalog::{self, Scope, Setter},
    },
    db::OrgTx,
    ids::{OrgId, ProjectId},
};
use http::{StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;

use self::layers::{ConfigValue, Layers};
use crate::{
    http::{
        etag::etag,
        problem::{Code, Problem},
        request::Request,
        response::{List, Response, json},
        schema::{Component, component, event_component, received},
    },
    projects,
    state::App,
};

/// The organization or project whose configuration a request is about.
#[derive(Clone, Copy)]
struct Target {
    org: OrgId,
    project: Option<ProjectId>,
}

impl Target {
    fn of(request: &Request) -> Result<Self, Problem> {
        let project = request.parameter("project").map(|_| request.path("project")).transpose()?;
        Ok(Self { org: request.path("org")?, project })
    }

    /// Begins the caller's transaction in the organization, and makes sure that the project exists.
    async fn open(self, app: &App, request: &Request) -> Result<OrgTx, Problem> {
        let mut tx = app.database.org_tx(&request.principal()?, self.org).await?;
        if let Some(project) = self.project {
            projects::require(&mut tx, project).await?;
        }
        Ok(tx)
    }

    async fn layers(self, app: &App, tx: &mut OrgTx) -> Result<Layers, Problem> {
        let values = Values::read(tx).await?;
        Ok(Layers::new(&app.configuration.platform(), values, self.project))
    }
}

/// The catalog's entry for the key in the path. Called only after the membership check: the catalog is no secret, but a
/// caller that is not a member must get the same response for every path.
fn key(request: &Request) -> Result<&'static catalog::Key, Problem> {
    request.parameter("key").and_then(catalog::find).ok_or_else(unknown_key)
}

fn unknown_key() -> Problem {
    Problem::new(
        Code::ConfigKeyUnknown,
        "No configuration key has this name; take one from the list of the configuration.",
    )
}

#[derive(Serialize, JsonSchema)]
struct ConfigurationEntry {
    #[serde(flatten)]
    value: ConfigValue,
    revision: i64,
}

/// The response for one key, with the organization's revision as the entity tag.
fn respond(layers: &Layers, key: &'static catalog::Key) -> Result<Response, Problem> {
    let revision = layers.revision();
    let mut response = json(StatusCode::OK, &ConfigurationEntry { value: layers.value(key), revision })?;
    response.headers_mut().insert(header::ETAG, etag(revision));
    Ok(response)
}

/// The request and response types of this module, for the test of the API description.
pub(crate) fn components() -> Vec<Component> {
    vec![
        received::<change::ConfigSet>("ConfigSet"),
        component::<Source>("ConfigSource"),
        component::<Scope>("ConfigScope"),
        component::<Setter>("ConfigSetter"),
        component::<ConfigValue>("ConfigValue"),
        component::<ConfigurationEntry>("ConfigEntry"),
        component::<read::Configuration>("ConfigList"),
        component::<HistoryAction>("ConfigAction"),
        component::<history::HistoryItem>("ConfigChange"),
        component::<List<history::HistoryItem>>("ConfigHistory"),
        component::<layers::Layer>("ConfigLayer"),
        component::<layers::Explanation>("ConfigExplanation"),
        component::<status::Process>("ConfigProcess"),
        component::<status::Status>("ConfigStatus"),
        event_component::<events::Changed>("ConfigChangedEvent"),
    ]
}
