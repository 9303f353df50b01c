//! The caller for which a transaction runs.

use crate::{api_key::ApiKeyUse, ids::UserId};

/// The caller for which a transaction runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Principal {
    /// A user, who must be a member of the organization.
    User(UserId),
    /// A service with a key of the organization.
    ApiKey(ApiKeyUse),
    /// A worker's role or an operator's command, by name. Request handlers never use this.
    System(&'static str),
}

impl Principal {
    /// The name of an operator's command.
    pub const OPERATOR: &'static str = "operator";
}
