//! Closed lists of the configuration.

use serde::Deserialize;
use serde_json::Value;
use strum::{IntoStaticStr, VariantArray};

/// What happens when a user opens more chat windows than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, IntoStaticStr, VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum SessionOverflow {
    /// The oldest window is notified and closed.
    CloseOldest,
    /// The new window is rejected.
    Refuse,
}

/// What a change did to a key.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    serde::Serialize,
    schemars::JsonSchema,
    sqlx::Type,
    strum::EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum HistoryAction {
    /// It was set to a value.
    Set,
    /// Its value was removed.
    Unset,
}

impl HistoryAction {
    /// What a change to this value does: without a value, it unsets the key.
    #[must_use]
    pub fn of(new_value: Option<&Value>) -> Self {
        if new_value.is_some() { Self::Set } else { Self::Unset }
    }

    /// The name, as in SQL and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}
