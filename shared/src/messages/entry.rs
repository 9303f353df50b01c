//! Stream entries, which Redis stores as names and values, all text.

use std::{collections::HashMap, fmt::Display, str::FromStr};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, value::MapDeserializer},
};
use serde_json::Value;

/// An entry does not have the expected type.
#[derive(Debug, thiserror::Error)]
#[error("malformed entry: {0}")]
pub struct MalformedEntry(#[from] serde::de::value::Error);

/// A type that is written to a stream, with one field in Redis for each of its own. Every field must be serialized as
/// text. None may be optional, because an empty value and a missing one would mean the same.
pub trait StreamEntry: Serialize + DeserializeOwned {
    /// The names and values to add.
    ///
    /// # Errors
    /// When a field has no text form.
    fn to_fields(&self) -> Result<Vec<(String, String)>, serde_json::Error> {
        let Value::Object(fields) = serde_json::to_value(self)? else {
            return Err(serde::ser::Error::custom("an entry must be a struct"));
        };
        let text = |(name, value)| match value {
            Value::String(value) => Ok((name, value)),
            _ => Err(serde::ser::Error::custom(format!("the field {name} is not text"))),
        };
        fields.into_iter().map(text).collect()
    }

    /// Deserializes an entry's fields; unknown ones are ignored.
    ///
    /// # Errors
    /// When a field is missing or malformed.
    fn from_fields(fields: &HashMap<String, String>) -> Result<Self, MalformedEntry> {
        let fields = fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Ok(Self::deserialize(MapDeserializer::<_, serde::de::value::Error>::new(fields))?)
    }
}

/// For `#[serde(with)]`: a number as text.
pub(super) mod as_text {
    use super::{Deserialize as _, Deserializer, Display, FromStr, Serializer};

    pub(in crate::messages) fn serialize<T: Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(in crate::messages) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
