//! What a member may do, and in which state an organization is.

use serde::{Deserialize, Serialize};

/// A member's role; a greater one may do everything a lesser one may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Role {
    /// Reads everything of the organization and watches its chats, changes nothing.
    Viewer,
    /// Takes part: presses actions.
    Member,
    /// Renames the organization, makes projects, invites people up to admins, changes configuration.
    Admin,
    /// Owns the organization: makes others its owners, too.
    Owner,
}

/// Where an organization is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OrgStatus {
    /// Accepted; its saga is at work. It can be read, not used.
    Pending,
    /// Ready for use.
    Committed,
    /// Its saga was compensated; it will never be used.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::Role;

    #[test]
    fn roles_are_ordered_by_what_they_may_do() {
        assert!(Role::Viewer < Role::Member && Role::Member < Role::Admin && Role::Admin < Role::Owner);
    }
}
