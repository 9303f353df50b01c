//! The roles of members and the states of organizations, which every transaction begins by reading. The rules that
//! follow from them are in [`organizations`](crate::organizations).

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

/// A member's role; a greater one may do everything a lesser one may.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    sqlx::Type,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    /// Reads everything of the organization and watches its chats, changes nothing.
    Viewer,
    /// Takes part: presses actions.
    Member,
    /// Renames the organization, makes projects, invites people up to admins, changes configuration.
    Admin,
    /// Owns the organization: makes others its owners, too, suspends it, deletes it.
    Owner,
}

/// Where an organization is in its life.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    sqlx::Type,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum OrgStatus {
    /// Accepted; its saga is at work. It can be read, not used.
    Pending,
    /// Ready for use.
    Committed,
    /// Its saga was compensated; it will never be used.
    Failed,
    /// Its owner, or an operator, has suspended it: it can be read and exported, not changed, and nothing is live.
    Suspended,
    /// Its deletion was requested. Like suspended; during the grace period it can be restored.
    Deleting,
}

#[cfg(test)]
mod tests {
    use super::Role;

    #[test]
    fn roles_are_ordered_by_their_rights() {
        assert!(Role::Viewer < Role::Member && Role::Member < Role::Admin && Role::Admin < Role::Owner);
    }
}
