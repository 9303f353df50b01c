//! Reading configuration: all keys, one key, and the layers that a key's value comes from.

use std::sync::Arc;

use atrium_shared::configuration::catalog;
use http::{StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Target, key, layers::ConfigValue, respond};
use crate::{
    http::{
        etag::etag,
        problem::Problem,
        request::Request,
        response::{Response, json},
    },
    state::App,
};

#[derive(Serialize, JsonSchema)]
pub(super) struct Configuration {
    revision: i64,
    items: Vec<ConfigValue>,
}

/// `GET …/configs`
///
/// # Errors
/// When the caller is not a member, or there is no such project.
pub async fn list(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let target = Target::of(request)?;
    let mut tx = target.open(app, request).await?;
    let layers = target.layers(app, &mut tx).await?;
    let revision = layers.revision();
    let items = catalog::all().iter().map(|key| layers.value(key)).collect();
    let mut response = json(StatusCode::OK, &Configuration { revision, items })?;
    response.headers_mut().insert(header::ETAG, etag(revision));
    Ok(response)
}

/// `GET …/configs/{key}`
///
/// # Errors
/// When the caller is not a member, or there is no such project or key.
pub async fn get(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let target = Target::of(request)?;
    let mut tx = target.open(app, request).await?;
    let key = key(request)?;
    respond(&target.layers(app, &mut tx).await?, key)
}

/// `GET …/configs/{key}/explain`
///
/// # Errors
/// When the caller is not a member, or there is no such project or key.
pub async fn explain(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let target = Target::of(request)?;
    let mut tx = target.open(app, request).await?;
    let key = key(request)?;
    json(StatusCode::OK, &target.layers(app, &mut tx).await?.explain(key))
}
