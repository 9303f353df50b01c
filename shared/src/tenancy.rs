//! The roles of members and the statuses of organizations. Every transaction of an organization begins by reading both.
//! The rules that follow from them are in [`organizations`](crate::organizations).

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

/// A member's role. A greater role includes all permissions of the lesser ones.
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
    /// Reads everything in the organization and watches its chats, but changes nothing.
    Viewer,
    /// Also presses actions in chats.
    Member,
    /// Also renames the organization, creates projects, invites users with roles up to admin, changes configuration.
    Admin,
    /// Also makes other members owners, suspends the organization, deletes it.
    Owner,
}

/// The status of an organization.
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
    /// Requested; its saga is running. It can be read, not used.
    Pending,
    /// Ready for use.
    Committed,
    /// Its saga was compensated; it will never be used.
    Failed,
    /// Suspended by an owner or an operator: it can be read and exported, not changed, and has no live streams.
    Suspended,
    /// An owner requested its deletion. The limits of a suspension apply; until the grace period is over, it can be
    /// restored.
    Deleting,
}

#[cfg(test)]
mod tests {
    use super::Role;

    #[test]
    fn roles_are_ordered_by_permissions() {
        assert!(Role::Viewer < Role::Member && Role::Member < Role::Admin && Role::Admin < Role::Owner);
    }
}
