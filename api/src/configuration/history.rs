//! The history of a configuration key: old and new value, author, reason and time of each change.

use std::sync::Arc;

use atrium_shared::{
    configuration::{
        HistoryAction,
        catalog::Scope,
        write::{self, Author, HistoryEntry},
    },
    ids::ProjectId,
};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

use super::{Target, key};
use crate::{
    http::{
        caller::User,
        problem::Problem,
        query::{PAGE, Page},
        request::Request,
        response::{Response, json},
    },
    state::App,
};

#[derive(Serialize, JsonSchema)]
pub(super) struct HistoryItem {
    revision: i64,
    key: String,
    scope: Scope,
    project_id: Option<ProjectId>,
    action: HistoryAction,
    old_value: Option<Value>,
    new_value: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<User>,
    /// The name of the API key, if a service made the change.
    api_key: Option<String>,
    reason: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    changed_at: OffsetDateTime,
}

impl From<HistoryEntry> for HistoryItem {
    fn from(entry: HistoryEntry) -> Self {
        let (author, api_key) = match entry.author() {
            Some(Author::User(id, name)) => (Some(User { id, name }), None),
            Some(Author::ApiKey(name)) => (None, Some(name)),
            None => (None, None),
        };
        Self {
            revision: entry.revision,
            key: entry.key,
            scope: if entry.project_id.is_some() { Scope::Project } else { Scope::Organization },
            project_id: entry.project_id,
            action: entry.action,
            old_value: entry.old_value,
            new_value: entry.new_value,
            author,
            api_key,
            reason: entry.reason,
            changed_at: entry.changed_at,
        }
    }
}

/// `GET …/configs/{key}/history`, newest first. The history of an organization includes that of its projects.
///
/// # Errors
/// When the caller is not a member, or there is no such project or key.
pub async fn history(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let target = Target::of(request)?;
    let page: Page<i64> = request.query(PAGE)?.page()?;
    let mut tx = target.open(app, request).await?;
    let key = key(request)?;
    let entries = write::history(&mut tx, key.name, target.project, page.after, page.fetch()).await?;
    let entries: Vec<HistoryItem> = entries.into_iter().map(HistoryItem::from).collect();
    json(StatusCode::OK, &page.cut(entries, |entry| entry.revision))
}
