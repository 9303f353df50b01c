//! How often each action was pressed in a project.

use std::sync::Arc;

use atrium_shared::{
    ids::{OrgId, ProjectId},
    messages::ChatAction,
};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    http::{
        problem::Problem,
        request::Request,
        response::{self, Response},
    },
    state::App,
};

#[derive(Serialize, JsonSchema)]
pub(super) struct Counters {
    items: Vec<Counter>,
    total: i64,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Counter {
    #[schemars(with = "ChatAction")]
    action: String,
    count: i64,
}

/// `GET …/chat/counters`.
///
/// # Errors
/// [`Code::NotFound`](crate::http::problem::Code::NotFound) for a project that does not exist.
pub async fn get(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let (org, project): (OrgId, ProjectId) = (request.path("org")?, request.path("project")?);
    request.query(&[])?;
    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    let rows = sqlx::query!(
        r#"SELECT counter.action AS "action?", counter.count AS "count?"
           FROM projects LEFT JOIN chat_counters counter
             ON counter.org_id = projects.org_id AND counter.project_id = projects.id
          WHERE projects.org_id = $1 AND projects.id = $2
          ORDER BY counter.action"#,
        org as OrgId,
        project as ProjectId
    )
    .fetch_all(tx.conn())
    .await?;
    if rows.is_empty() {
        return Err(Problem::not_found());
    }
    // A project without counters is one row without an action.
    let items: Vec<Counter> =
        rows.into_iter().filter_map(|row| Some(Counter { action: row.action?, count: row.count? })).collect();
    let total = items.iter().map(|item| item.count).sum();
    response::json(StatusCode::OK, &Counters { items, total })
}
