//! The fixture for generated requests: an organization with one resource of each kind, and callers of each role.

use std::collections::BTreeMap;

use atrium_harness::{Atrium, guest::Guest};
use serde_json::json;

use crate::{CheckedSend as _, operations::Operation};

/// All roles, in ascending order.
pub(crate) const ROLES: [&str; 4] = ["viewer", "member", "admin", "owner"];

/// An organization with one resource of each kind.
pub(crate) struct World {
    pub(crate) people: BTreeMap<&'static str, Guest>,
    pub(crate) ids: BTreeMap<&'static str, String>,
    /// One chat session for each member, by role.
    pub(crate) sessions: BTreeMap<&'static str, String>,
}

impl World {
    /// Creates an organization with an owner, and a member of each of these roles.
    pub(crate) async fn create(atrium: &Atrium, roles: &[&'static str]) -> Self {
        let owner = atrium.guest().await;
        let created = owner.create_organization("World").await.unwrap();
        let org = created.org;
        owner.committed(&created.operation).await.unwrap();
        let project = owner.project(&org, "Project").await.unwrap();
        let invitation = owner.client.post(format!("/v1/orgs/{org}/invitations"));
        let invitation = invitation.json(json!({ "role": "viewer" })).answers(201).await.at("/id");
        let api_key = owner.client.post(format!("/v1/orgs/{org}/api-keys"));
        let api_key = api_key.json(json!({ "name": "Deployment", "scopes": ["config:read"] }));
        let api_key = api_key.answers(201).await.at("/id");
        let bystander = owner.invite_guest(&org, "viewer").await.unwrap();
        let mut people = BTreeMap::from([("owner", owner.clone())]);
        for role in roles.iter().filter(|role| **role != "owner") {
            people.insert(role, owner.invite_guest(&org, role).await.unwrap());
        }
        let mut sessions = BTreeMap::new();
        for (role, guest) in &people {
            sessions.insert(*role, guest.open_chat(&org, &project).await.unwrap().session);
        }
        let ids = BTreeMap::from([
            ("org", org),
            ("project", project),
            ("invitation", invitation),
            ("api_key", api_key),
            ("operation", created.operation),
            ("user", bystander.id),
        ]);
        Self { people, ids, sessions }
    }

    /// The value of a path parameter in this world, for the member of this role. A parameter that is not an id has the
    /// contract's example.
    pub(crate) fn own<'a>(&'a self, operation: &'a Operation, role: &str, parameter: &str) -> &'a str {
        match parameter {
            "session" => self.sessions.get(role).unwrap_or(&self.sessions["owner"]),
            "key" => operation.example("key"),
            "user_id" => &self.ids["user"],
            id => self
                .ids
                .get(id)
                .unwrap_or_else(|| panic!("{}: `World` has no value for `{id}`", operation.id)),
        }
    }
}
