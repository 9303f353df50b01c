//! Identifiers: one type for each thing, so that an organization's id cannot be passed for a project's.
//!
//! All are UUIDv7 ([RFC 9562](https://www.rfc-editor.org/rfc/rfc9562)): made by the server, ordered by time.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema, sqlx::Type)]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, greater than those made before by this process.
            #[must_use]
            #[expect(clippy::new_without_default, reason = "every call gives another value")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The bare UUID.
            #[must_use]
            pub fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            /// Accepts the hyphenated form only: one thing has one name.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Ok(Self(text.parse::<uuid::fmt::Hyphenated>()?.into_uuid()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

id!(
    /// An organization: the tenant.
    OrgId
);
id!(
    /// A project of an organization.
    ProjectId
);
id!(
    /// A person, as far as Atrium knows one: a guest with a number.
    UserId
);
id!(
    /// A sign-in session: what one sign-in begins, its refresh tokens and the access tokens made from them.
    AuthSessionId
);
id!(
    /// A chat session: one open window.
    SessionId
);
id!(
    /// A saga; its operation resource has the same id.
    SagaId
);
id!(
    /// An invitation to join an organization.
    InvitationId
);
id!(
    /// A key of a service.
    ApiKeyId
);
id!(
    /// A message of the outbox, or an action of the chat: what is delivered again keeps its id.
    MessageId
);

impl OrgId {
    /// The platform itself: the organization without members whose configuration holds by default.
    pub const PLATFORM: Self = Self(Uuid::nil());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_and_survive_their_text_form() {
        let (first, second) = (OrgId::new(), OrgId::new());
        assert!(first < second);
        assert_eq!(first.to_string().parse::<OrgId>().ok(), Some(first));
    }

    #[test]
    fn only_the_hyphenated_form_is_a_name() {
        let id = ProjectId::new();
        for other in
            [id.uuid().simple().to_string(), format!("{{{id}}}"), format!("urn:uuid:{id}"), String::new()]
        {
            assert!(other.parse::<ProjectId>().is_err(), "{other}");
        }
    }
}
