//! Changing configuration. A change has a value, a reason, and the revision that it is based on (`If-Match`).

use std::sync::Arc;

use atrium_shared::{
    configuration::{
        catalog::Key,
        write::{Change, ChangeError, apply},
    },
    tenancy::Role,
};
use serde_json::Value;

use super::{Target, key, respond, unknown_key};
use crate::{
    http::{
        body::{any, check_line, line},
        etag::{self, IfMatch},
        problem::{Code, FieldError, Problem},
        request::Request,
        request_body::request_body,
        response::Response,
    },
    state::App,
};

const MAX_REASON_LENGTH: usize = 500;

request_body! {
    /// A value for a key.
    pub(super) struct ConfigSet {
        value: Value = required(any),
        reason: String = required(line(MAX_REASON_LENGTH)),
    }
}

/// `PUT …/configs/{key}`
///
/// # Errors
/// When the caller lacks permission, the key is unknown, the value is invalid, or the revision has changed.
pub async fn set(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let target = Target::of(request)?;
    let condition = request.if_match()?;
    let ConfigSet { value, reason } = request.body().await?;
    change(app, request, target, condition, Some(value), reason).await
}

/// `DELETE …/configs/{key}?reason=`
///
/// # Errors
/// When the caller lacks permission, the key is unknown, or the revision has changed.
pub async fn unset(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let target = Target::of(request)?;
    let condition = request.if_match()?;
    let query = request.query(&["reason"])?;
    let reason = query.get("reason").ok_or_else(|| "is required".to_owned());
    let reason = reason
        .and_then(|text| check_line(text, MAX_REASON_LENGTH))
        .map_err(|error| Problem::validation(vec![FieldError::parameter("reason", error)]))?;
    change(app, request, target, condition, None, reason).await
}

async fn change(
    app: &App,
    request: &Request,
    target: Target,
    condition: IfMatch,
    value: Option<Value>,
    reason: String,
) -> Result<Response, Problem> {
    let author = request.author()?;
    let mut tx = target.open(app, request).await?;
    let key = key(request)?;
    tx.require_writable(Role::Admin)?;
    let change = Change {
        project: target.project,
        key: key.name.to_owned(),
        value,
        author: Some(author),
        reason,
        expected_revision: match condition {
            IfMatch::Any => None,
            IfMatch::Version(revision) => Some(revision),
            IfMatch::Foreign => return Err(etag::failed()),
        },
    };
    apply(&mut tx, change).await.map_err(|error| change_problem(error, key))?;
    let layers = target.layers(app, &mut tx).await?;
    tx.commit().await?;
    respond(&layers, key)
}

fn change_problem(error: ChangeError, key: &Key) -> Problem {
    match error {
        ChangeError::UnknownKey => unknown_key(),
        ChangeError::ScopeNotAllowed(_) => {
            let scopes: Vec<&str> = key.scopes.iter().map(Into::into).collect();
            Problem::new(
                Code::ConfigScopeNotAllowed,
                format!("`{}` cannot be set at this scope, only at: {}.", key.name, scopes.join(", ")),
            )
        }
        ChangeError::OperatorOnly => Problem::new(
            Code::ConfigOperatorOnly,
            format!("Only the operator of the platform can set `{}`.", key.name),
        ),
        ChangeError::Invalid(violations) => {
            let errors = violations
                .into_iter()
                .map(|violation| FieldError::body(format!("/value{}", violation.pointer), violation.detail));
            Problem::new(
                Code::ConfigValueInvalid,
                format!("The value of `{}` is invalid; `errors` lists what to correct.", key.name),
            )
            .errors(errors.collect())
        }
        ChangeError::Reason => {
            Problem::validation(vec![FieldError::body("/reason", "must be 1 to 500 characters long")])
        }
        ChangeError::Stale { .. } => etag::failed(),
        ChangeError::Database(error) => error.into(),
    }
}
