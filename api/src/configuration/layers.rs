//! The layers that a value comes from: built-in, default, organization, project. The value set in the narrowest layer
//! applies.

use std::collections::BTreeMap;

use atrium_shared::{
    configuration::{
        Snapshot, Source, Values,
        catalog::{Key, Scope, Setter},
    },
    ids::ProjectId,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// The values set in each layer, for an organization or one of its projects.
pub(super) struct Layers {
    revision: i64,
    /// From the widest to the narrowest layer. The built-in layer is not included.
    set: Vec<(Source, BTreeMap<String, Value>)>,
}

/// A key and the value that applies.
#[derive(Serialize, JsonSchema)]
pub(super) struct ConfigValue {
    key: &'static str,
    value: Value,
    source: Source,
    description: &'static str,
    schema: &'static Value,
    scopes: &'static [Scope],
    set_by: Setter,
}

/// Why a key has the value it has.
#[derive(Serialize, JsonSchema)]
pub(super) struct Explanation {
    key: &'static str,
    value: Value,
    source: Source,
    layers: Vec<Layer>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Layer {
    source: Source,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
    set: bool,
}

impl Layers {
    pub(super) fn new(platform: &Snapshot, mut values: Values, project: Option<ProjectId>) -> Self {
        let mut set = vec![
            (Source::Default, platform.values().organization.clone()),
            (Source::Organization, std::mem::take(&mut values.organization)),
        ];
        if let Some(project) = project {
            set.push((Source::Project, values.projects.remove(&project).unwrap_or_default()));
        }
        Self { revision: values.revision, set }
    }

    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    pub(super) fn value(&self, key: &'static Key) -> ConfigValue {
        let (source, value) = self.in_force(key);
        ConfigValue {
            key: key.name,
            value,
            source,
            description: key.description,
            schema: &key.schema,
            scopes: key.scopes,
            set_by: key.setter,
        }
    }

    pub(super) fn explain(&self, key: &'static Key) -> Explanation {
        let (source, value) = self.in_force(key);
        let builtin = Layer { source: Source::Builtin, value: Some(key.builtin.clone()), set: true };
        let above = self.set.iter().map(|(source, values)| {
            let value = values.get(key.name).cloned();
            Layer { source: *source, set: value.is_some(), value }
        });
        Explanation { key: key.name, value, source, layers: std::iter::once(builtin).chain(above).collect() }
    }

    fn in_force(&self, key: &Key) -> (Source, Value) {
        let set =
            self.set.iter().rev().find_map(|(source, values)| Some((*source, values.get(key.name)?.clone())));
        set.unwrap_or_else(|| (Source::Builtin, key.builtin.clone()))
    }
}

#[cfg(test)]
mod tests {
    use atrium_shared::{configuration::catalog, ids::OrgId};
    use serde_json::json;

    use super::*;

    #[test]
    fn the_narrowest_layer_with_a_value_applies() {
        let name = "chat.max_active_sessions";
        let key = catalog::find(name).expect("in the catalog");
        let only = |value: i64| BTreeMap::from([(name.to_owned(), json!(value))]);
        let platform = Values { organization: only(5), ..Values::default() };
        let platform = Snapshot::build(OrgId::PLATFORM, &BTreeMap::new(), platform).expect("valid values");
        let project = ProjectId::new();
        let values = Values { revision: 7, projects: [(project, only(9))].into(), ..Values::default() };

        let layers = Layers::new(&platform, values.clone(), Some(project));
        assert_eq!((layers.in_force(key), layers.revision()), ((Source::Project, json!(9)), 7));
        let explained = serde_json::to_value(layers.explain(key)).expect("JSON");
        assert_eq!(
            explained["layers"],
            json!([
                {"source": "builtin", "value": 3, "set": true},
                {"source": "default", "value": 5, "set": true},
                {"source": "organization", "set": false},
                {"source": "project", "value": 9, "set": true},
            ])
        );
        let layers = Layers::new(&platform, values, Some(ProjectId::new()));
        assert_eq!(layers.in_force(key), (Source::Default, json!(5)));
    }
}
