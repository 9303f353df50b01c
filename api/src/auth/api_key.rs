//! Authorizes requests that carry an API key.
//!
//! The key is looked up among the keys of the organization that it names, before the handler runs. The handler's
//! transaction looks it up again, so a key that is revoked between the two has no effect.

use std::sync::Arc;

use atrium_shared::{
    api_key::{ApiKeyText, ApiKeyUse, ApiScope},
    db::{ApiKey, in_time},
    ids::OrgId,
};

use crate::{
    http::{
        caller::ApiKeyCaller,
        problem::{Code, Problem},
        request::Request,
    },
    state::App,
};

/// Turns a verified key into the caller of a route that requires `scope`.
///
/// # Errors
/// [`Code::ApiKeyNotAccepted`] on a route that accepts no key (`scope` is `None`); [`Code::NotFound`] for a path in
/// another organization; [`Code::ApiKeyScopeMissing`] when the key lacks the scope.
pub(super) fn caller(
    app: &Arc<App>,
    scope: Option<ApiScope>,
    request: &Request,
    presented: &ApiKeyText,
    key: ApiKey,
) -> Result<ApiKeyCaller, Problem> {
    let scope = scope.ok_or_else(Problem::api_key_not_accepted)?;
    // The same response as for a caller that is not a member: a key must not reveal that another organization exists.
    if request.path::<OrgId>("org").ok() != Some(presented.org) {
        return Err(Problem::not_found());
    }
    if !key.allows(scope) {
        let detail = format!("This API key lacks the scope `{}`.", scope.name());
        return Err(Problem::new(Code::ApiKeyScopeMissing, detail));
    }
    if key.should_record_use() {
        let (task_app, org, id) = (Arc::clone(app), presented.org, presented.id);
        app.shutdown.spawn(async move {
            if let Err(error) = in_time(task_app.database.record_api_key_use(org, id)).await {
                tracing::warn!(%error, %org, key = %id, "the use of an API key was not noted");
            }
        });
    }
    let used = ApiKeyUse { id: presented.id, hash: presented.hash(), scope };
    Ok(ApiKeyCaller { key: used, name: key.name, expires_at: key.expires_at })
}
