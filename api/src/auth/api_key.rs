//! A service authenticates with an API key, which is looked up among the keys of the organization that it names.
//!
//! It is looked up before anything else of the request counts; the handler's transaction looks it up again, so a key
//! that is revoked in between opens nothing.

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

/// The caller for a key, on a route that requires `scope`.
///
/// # Errors
/// [`Code::ApiKeyNotAccepted`] where no key is; [`Code::NotFound`] in another organization;
/// [`Code::ApiKeyScopeMissing`] when the key is not for this.
pub(super) fn caller(
    app: &Arc<App>,
    scope: Option<ApiScope>,
    request: &Request,
    presented: &ApiKeyText,
    key: ApiKey,
) -> Result<ApiKeyCaller, Problem> {
    let scope = scope.ok_or_else(Problem::api_key_not_accepted)?;
    // The same response as for a user who is no member, regardless of the key's rights in its own organization.
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
