//! The effective configuration of an organization or a project, as the typed values that processes use.

use std::{num::NonZeroU32, time::Duration};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{catalog, lists::SessionOverflow};
use crate::messages::ChatAction;

/// The effective value of every key of the catalog, which documents the fields.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the catalog describes every key once")]
pub struct Effective {
    #[serde(rename = "chat.max_active_sessions")]
    pub chat_max_active_sessions: u32,
    #[serde(rename = "chat.session_overflow")]
    pub chat_session_overflow: SessionOverflow,
    #[serde(rename = "chat.actions")]
    pub chat_actions: Vec<ChatAction>,
    #[serde(rename = "limits.bad_tokens_per_minute")]
    pub bad_tokens_per_minute: NonZeroU32,
    #[serde(rename = "limits.chat_actions_per_second")]
    pub chat_actions_per_second: NonZeroU32,
    #[serde(rename = "limits.requests_per_minute")]
    pub requests_per_minute: NonZeroU32,
    #[serde(rename = "limits.sign_ins_per_minute")]
    pub sign_ins_per_minute: NonZeroU32,
    #[serde(rename = "limits.sign_ins_per_minute_total")]
    pub sign_ins_per_minute_total: NonZeroU32,
    #[serde(rename = "log.level")]
    pub log_level: String,
    #[serde(rename = "organization.deletion_grace_seconds")]
    deletion_grace_seconds: u64,
    #[serde(rename = "quotas.active_streams")]
    pub quota_active_streams: NonZeroU32,
    #[serde(rename = "quotas.members")]
    pub quota_members: NonZeroU32,
    #[serde(rename = "quotas.projects")]
    pub quota_projects: NonZeroU32,
    #[serde(rename = "quotas.requests_per_minute")]
    pub quota_requests_per_minute: NonZeroU32,
    #[serde(rename = "saga.fail_step")]
    pub saga_fail_step: String,
    #[serde(rename = "sse.heartbeat_seconds")]
    sse_heartbeat_seconds: u64,
}

impl Effective {
    /// The values when no scope sets any.
    ///
    /// # Errors
    /// Never, which a test checks.
    pub fn builtin() -> Result<Self, serde_json::Error> {
        Self::merge(std::iter::empty::<[(String, Value); 0]>())
    }

    /// Merges layers of values over the built-in ones; later layers override earlier ones.
    ///
    /// # Errors
    /// When a value does not have its key's type, so that this release cannot apply it. Unknown keys, which a newer
    /// release may have set, are ignored.
    pub fn merge<I>(layers: impl IntoIterator<Item = I>) -> Result<Self, serde_json::Error>
    where
        I: IntoIterator<Item = (String, Value)>,
    {
        let mut merged: Map<String, Value> =
            catalog::all().iter().map(|key| (key.name.to_owned(), key.builtin.clone())).collect();
        for layer in layers {
            merged.extend(layer);
        }
        serde_json::from_value(Value::Object(merged))
    }

    /// How long the deletion of an organization can be canceled.
    #[must_use]
    pub fn deletion_grace(&self) -> Duration {
        Duration::from_secs(self.deletion_grace_seconds)
    }

    /// How often a quiet event stream sends a comment.
    #[must_use]
    pub fn sse_heartbeat(&self) -> Duration {
        Duration::from_secs(self.sse_heartbeat_seconds)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn builtin_values_can_be_deserialized() {
        assert!(Effective::builtin().is_ok());
    }

    #[test]
    fn values_that_a_schema_accepts_can_be_deserialized() {
        let key = catalog::find("chat.max_active_sessions").expect("in the catalog");
        for value in [json!(1), json!(20)] {
            assert_eq!(key.violations(&value), [], "{value}");
            assert!(Effective::merge([[(key.name.to_owned(), value)]]).is_ok());
        }
    }
}
