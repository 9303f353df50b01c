//! Keys of services: what one may be used for, and how it looks.
//!
//! A key's text is a prefix that scanners for leaked secrets recognize, followed by its organization's id, its own id
//! and 256 random bits in base64url. The ids select the rows and prove nothing; the secret is the proof, and is stored
//! as a hash only. It is random, so a plain hash is enough.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use strum::{IntoStaticStr, VariantArray};
use uuid::Uuid;

use crate::{
    ids::{ApiKeyId, OrgId},
    tenancy::Role,
};

/// What a key begins with.
pub const PREFIX: &str = "atk_";

/// The use that a key allows. A route requires one scope, or accepts no keys.
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
    /// Makes, renames and deletes projects.
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
    /// All of them.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The equivalent role on the routes with this scope. The creator of a key must have it.
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

/// A key that is used under one of its scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiKeyUse {
    /// The key.
    pub id: ApiKeyId,
    /// The hash of the secret that was presented.
    pub hash: SecretHash,
    /// What for.
    pub scope: ApiScope,
}

/// A key as its holder has it. Without `Debug`, so that no log gets one.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKeyText {
    /// The organization it is a key of.
    pub org: OrgId,
    /// The key.
    pub id: ApiKeyId,
    secret: [u8; 32],
}

impl ApiKeyText {
    /// A new one.
    #[must_use]
    pub fn new(org: OrgId) -> Self {
        Self { org, id: ApiKeyId::new(), secret: rand::random() }
    }

    /// The hash that the database stores. A lookup by hash compares no secret, so its timing reveals nothing.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        Sha256::digest(self.secret).into()
    }

    /// The text to hand out.
    #[must_use]
    pub fn to_text(&self) -> String {
        let bytes = [&self.org.uuid().as_bytes()[..], &self.id.uuid().as_bytes()[..], &self.secret].concat();
        format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads such a text.
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
    fn an_api_key_round_trips_and_other_texts_are_rejected() {
        let key = ApiKeyText::new(OrgId::new());
        let text = key.to_text();
        assert!(text.starts_with("atk_") && ApiKeyText::parse(&text) == Some(key));
        let bare = &text[4..];
        for wrong in [
            "",
            "atk_",
            bare,
            &text[..80],
            &format!("{text}A"),
            &format!("{text}="),
            &format!("ATK_{bare}"),
            "atk_🙂",
        ] {
            assert!(ApiKeyText::parse(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn a_scope_has_one_name_everywhere() {
        for scope in ApiScope::ALL {
            assert_eq!(serde_json::to_value(scope).ok(), Some(scope.name().into()));
        }
    }
}
