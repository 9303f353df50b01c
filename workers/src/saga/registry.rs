//! The registry of all sagas.

use std::collections::HashMap;

use atrium_shared::streams::Redis;

use super::{create_organization, delete_organization, step::Saga};
use crate::isolation::Isolation;

/// The sagas that this release can run, by kind.
pub(super) struct Registry(HashMap<&'static str, Saga>);

impl Registry {
    pub(super) fn new(redis: &Redis, isolation: &Isolation) -> Self {
        let sagas = [create_organization::saga(isolation), delete_organization::saga(redis, isolation)];
        Self(sagas.into_iter().map(|saga| (saga.kind.name(), saga)).collect())
    }

    /// Returns the saga of this kind, if this release has it.
    pub(super) fn saga(&self, kind: &str) -> Option<&Saga> {
        self.0.get(kind)
    }

    /// Whether a step of any saga has an external effect.
    pub(super) fn has_external_effects(&self) -> bool {
        self.0.values().flat_map(|saga| &saga.steps).any(|step| step.external_effect().is_some())
    }
}
