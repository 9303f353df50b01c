//! The catalog of configuration keys: the meaning of each, its valid values, and where it may be set.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde::Serialize;
use serde_json::{Value, json};
use strum::{IntoStaticStr, VariantArray};

use super::lists::SessionOverflow;
use crate::messages::ChatAction;

/// Where a key may be set.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    schemars::JsonSchema,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Scope {
    /// By the operator, for all organizations.
    Default,
    /// For one organization.
    Organization,
    /// For one project.
    Project,
}

/// Who may set a key. In the default scope, only the operator may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema, IntoStaticStr, VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Setter {
    /// An organization's admins, for the organization and its projects, and the operator.
    Admin,
    /// The operator alone, because the organization must not change it itself.
    Operator,
}

/// A key of the catalog.
pub struct Key {
    /// The name, such as `chat.max_active_sessions`.
    pub name: &'static str,
    /// Its effect, for the person who sets it.
    pub description: &'static str,
    /// The JSON Schema (draft 2020-12) a value must satisfy.
    pub schema: Value,
    /// The value when no scope sets one.
    pub builtin: Value,
    /// Where it may be set.
    pub scopes: &'static [Scope],
    /// Who may set it.
    pub setter: Setter,
    validator: Validator,
}

/// An error in a value, and its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// JSON Pointer ([RFC 6901](https://www.rfc-editor.org/rfc/rfc6901)) into the value; empty for the whole value.
    pub pointer: String,
    /// What is wrong.
    pub detail: String,
}

impl Key {
    /// All errors in `value`; empty when it is valid.
    #[must_use]
    pub fn violations(&self, value: &Value) -> Vec<Violation> {
        self.validator
            .iter_errors(value)
            .map(|error| Violation { pointer: error.instance_path().to_string(), detail: error.to_string() })
            .collect()
    }
}

/// The key with this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.binary_search_by(|key| key.name.cmp(name)).ok().map(|at| &KEYS[at])
}

/// All keys, ordered by name.
#[must_use]
pub fn all() -> &'static [Key] {
    &KEYS
}

const EVERYWHERE: &[Scope] = &[Scope::Default, Scope::Organization, Scope::Project];
const PLATFORM: &[Scope] = &[Scope::Default];
const ORGANIZATION: &[Scope] = &[Scope::Default, Scope::Organization];

static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let mut keys = vec![
        key(
            "chat.max_active_sessions",
            "How many chat windows one user may have open in one project.",
            json!({"type": "integer", "minimum": 1, "maximum": 20}),
            json!(3),
            EVERYWHERE,
        ),
        key(
            "chat.session_overflow",
            "What happens when a user opens one more window: close_oldest closes the oldest one, refuse rejects the new one.",
            json!({"enum": names::<SessionOverflow>()}),
            json!(<&str>::from(SessionOverflow::CloseOldest)),
            EVERYWHERE,
        ),
        key(
            "chat.actions",
            "The canned actions that are offered, in this order.",
            json!({
                "type": "array", "minItems": 1, "uniqueItems": true,
                "items": {"enum": names::<ChatAction>()}
            }),
            json!(names::<ChatAction>()),
            EVERYWHERE,
        ),
        key(
            "limits.chat_actions_per_second",
            "How many chat actions per second one user may send in one project.",
            json!({"type": "integer", "minimum": 1, "maximum": 10_000}),
            json!(5),
            EVERYWHERE,
        ),
        key(
            "limits.requests_per_minute",
            "How many requests per minute one user may send, without chat actions and sign-ins.",
            json!({"type": "integer", "minimum": 1, "maximum": 1_000_000}),
            json!(100),
            PLATFORM,
        ),
        key(
            "limits.sign_ins_per_minute",
            "How many sign-ins per minute one address may send.",
            json!({"type": "integer", "minimum": 1, "maximum": 1_000_000}),
            json!(10),
            PLATFORM,
        ),
        key(
            "log.level",
            "The lowest level of log lines that processes write.",
            json!({"enum": ["error", "warn", "info", "debug", "trace"]}),
            json!("info"),
            PLATFORM,
        ),
        key(
            "organization.deletion_grace_seconds",
            "How long a deletion can be canceled. Then the organization is purged.",
            json!({"type": "integer", "minimum": 0, "maximum": 31_536_000}),
            json!(604_800),
            PLATFORM,
        ),
        key(
            "saga.fail_step",
            "For drills: the step, as <saga>/<step>, that always fails, to exercise compensation. Empty: none.",
            json!({"type": "string", "maxLength": 200, "pattern": "^([a-z.-]+/[a-z-]+)?$"}),
            json!(""),
            PLATFORM,
        ),
        key(
            "sse.heartbeat_seconds",
            "Seconds between heartbeats of an event stream without events.",
            json!({"type": "integer", "minimum": 1, "maximum": 15}),
            json!(15),
            PLATFORM,
        ),
        key(
            "limits.bad_tokens_per_minute",
            "How many requests per minute one address may send with an invalid token.",
            json!({"type": "integer", "minimum": 1, "maximum": 1_000_000}),
            json!(100),
            PLATFORM,
        ),
        key(
            "limits.sign_ins_per_minute_total",
            "How many sign-ins per minute all addresses together may send.",
            json!({"type": "integer", "minimum": 1, "maximum": 10_000_000}),
            json!(6000),
            PLATFORM,
        ),
        quota(
            "quotas.active_streams",
            "How many event streams of one organization may be open concurrently.",
            json!({"type": "integer", "minimum": 1, "maximum": 1_000_000}),
            json!(1000),
        ),
        quota(
            "quotas.members",
            "How many members one organization may have.",
            json!({"type": "integer", "minimum": 1, "maximum": 1_000_000}),
            json!(1000),
        ),
        quota(
            "quotas.projects",
            "How many projects one organization may have.",
            json!({"type": "integer", "minimum": 1, "maximum": 1_000_000}),
            json!(100),
        ),
        quota(
            "quotas.requests_per_minute",
            "How many requests per minute all members of one organization together may send to it, including chat actions.",
            json!({"type": "integer", "minimum": 1, "maximum": 10_000_000}),
            json!(60_000),
        ),
    ];
    keys.sort_by_key(|key| key.name);
    keys
});

/// The names of a closed list, in its order.
fn names<E: VariantArray + Copy + Into<&'static str>>() -> Vec<&'static str> {
    E::VARIANTS.iter().copied().map(E::into).collect()
}

fn key(
    name: &'static str,
    description: &'static str,
    schema: Value,
    builtin: Value,
    scopes: &'static [Scope],
) -> Key {
    let validator = jsonschema::draft202012::new(&schema).expect("the catalog's schemas are tested");
    let setter = if scopes == PLATFORM { Setter::Operator } else { Setter::Admin };
    Key { name, description, schema, builtin, scopes, setter, validator }
}

/// A quota, which only the operator may set.
fn quota(name: &'static str, description: &'static str, schema: Value, builtin: Value) -> Key {
    Key { setter: Setter::Operator, ..key(name, description, schema, builtin, ORGANIZATION) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_value_satisfies_its_own_schema() {
        for key in all() {
            assert_eq!(key.violations(&key.builtin), [], "{}", key.name);
        }
    }

    #[test]
    fn violations_name_the_position_of_the_error() {
        let key = find("chat.max_active_sessions").expect("in the catalog");
        for (value, is_valid) in
            [(json!(1), true), (json!(20), true), (json!(0), false), (json!("3"), false), (json!(2.5), false)]
        {
            assert_eq!(key.violations(&value).is_empty(), is_valid, "{value}");
        }
        let key = find("chat.actions").expect("in the catalog");
        let violations = key.violations(&json!(["ready", "dance"]));
        assert_eq!(violations.first().map(|violation| violation.pointer.as_str()), Some("/1"));
    }

    #[test]
    fn find_returns_cataloged_names_only() {
        assert!(all().iter().all(|key| find(key.name).is_some()));
        assert!(find("chat.nothing").is_none());
    }
}
