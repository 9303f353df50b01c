//! API keys: their scopes and their text format.
//!
//! A key's text is a prefix that scanners for leaked secrets can search for, followed by the base64url encoding of the
//! organization's id, the key's id and a secret of 256 random bits. The ids only locate the key in the database; the
//! secret authenticates it. Only a hash of the secret is stored. The secret is random, so a plain hash is enough.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use strum::{IntoStaticStr, VariantArray};
use uuid::Uuid;

use crate::{
    ids::{ApiKeyId, OrgId},
    tenancy::Role,
};

/// The prefix of every key.
pub const PREFIX: &str = "atk_";

/// A scope of API keys. Each route either requires one scope or accepts no keys.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    IntoStaticStr,
    VariantArray,
)]
pub enum ApiScope {
    /// Reads configuration, its history and its status, and follows its changes.
    #[serde(rename = "config:read")]
    #[strum(serialize = "config:read")]
    ConfigRead,
    /// Sets and unsets configuration.
    #[serde(rename = "config:write")]
    #[strum(serialize = "config:write")]
    ConfigWrite,
    /// Reads projects.
    #[serde(rename = "projects:read")]
    #[strum(serialize = "projects:read")]
    ProjectsRead,
    /// Creates, renames and deletes projects.
    #[serde(rename = "projects:write")]
    #[strum(serialize = "projects:write")]
    ProjectsWrite,
    /// Reads the list of members.
    #[serde(rename = "members:read")]
    #[strum(serialize = "members:read")]
    MembersRead,
    /// Reads the audit log.
    #[serde(rename = "audit:read")]
    #[strum(serialize = "audit:read")]
    AuditRead,
    /// Exports the organization.
    #[serde(rename = "export:read")]
    #[strum(serialize = "export:read")]
    ExportRead,
}

impl ApiScope {
    /// All scopes.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The role that a member needs for the routes of this scope. The creator of a key must have at least this role.
    #[must_use]
    pub fn role(self) -> Role {
        match self {
            Self::ConfigRead | Self::ProjectsRead | Self::MembersRead => Role::Viewer,
            Self::ConfigWrite | Self::ProjectsWrite | Self::AuditRead => Role::Admin,
            Self::ExportRead => Role::Owner,
        }
    }
}

/// SHA-256 of a key's secret.
pub type SecretHash = [u8; 32];

/// A request's use of a key, under one of its scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiKeyUse {
    /// The key.
    pub id: ApiKeyId,
    /// The hash of the secret that was presented.
    pub hash: SecretHash,
    /// The scope that the request needs.
    pub scope: ApiScope,
}

/// A key with its secret, as the service presents it. It does not implement `Debug`, so that no log contains a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKeyText {
    /// The organization that the key belongs to.
    pub org: OrgId,
    /// The key's id.
    pub id: ApiKeyId,
    secret: [u8; 32],
}

impl ApiKeyText {
    /// Creates a key with a new id and a random secret.
    #[must_use]
    pub fn new(org: OrgId) -> Self {
        Self { org, id: ApiKeyId::new(), secret: rand::random() }
    }

    /// The hash that the database stores. The lookup compares hashes, not secrets, so its timing reveals nothing.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        Sha256::digest(self.secret).into()
    }

    /// The text to return to the key's creator.
    #[must_use]
    pub fn to_text(&self) -> String {
        let bytes = [&self.org.uuid().as_bytes()[..], &self.id.uuid().as_bytes()[..], &self.secret].concat();
        format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Parses the text of a key.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        let (org, rest) = bytes.split_at_checked(16)?;
        let (id, secret) = rest.split_at_checked(16)?;
        Some(Self {
            org: Uuid::from_slice(org).ok()?.into(),
            id: Uuid::from_slice(id).ok()?.into(),
            secret: secret.try_into().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_round_trips_through_its_text_and_other_texts_are_rejected() {
        let key = ApiKeyText::new(OrgId::new());
        let text = key.to_text();
        assert!(text.starts_with("atk_") && ApiKeyText::parse(&text) == Some(key));
        let bare = &text[4..];
        for invalid in [
            "",
            "atk_",
            bare,
            &text[..80],
            &format!("{text}A"),
            &format!("{text}="),
            &format!("ATK_{bare}"),
            "atk_🙂",
        ] {
            assert!(ApiKeyText::parse(invalid).is_none(), "{invalid:?}");
        }
    }

    #[test]
    fn a_scope_has_the_same_name_in_json_and_rust() {
        for scope in ApiScope::ALL {
            assert_eq!(serde_json::to_value(scope).ok(), Some(scope.name().into()));
        }
    }
}
