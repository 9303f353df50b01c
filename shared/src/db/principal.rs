//! On whose behalf the database is asked.

use crate::{api_key::ApiKeyUse, ids::UserId};

/// On whose behalf a transaction runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Principal {
    /// A person; must be a member of the organization.
    User(UserId),
    /// A service with a key of the organization.
    ApiKey(ApiKeyUse),
    /// A worker's role or an operator's command, by name. Handlers of requests never construct this.
    System(&'static str),
}

impl Principal {
    /// The name of an operator's command.
    pub const OPERATOR: &'static str = "operator";
}
