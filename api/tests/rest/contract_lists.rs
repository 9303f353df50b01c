//! The naming style of the API's closed lists (ADR 20). Those of `atrium_shared` are tested there.

use atrium_api::{
    http::problem::Code,
    live::{open_streams::StreamKind, ring::ResetReason},
    schemas,
};
use atrium_harness::casing::{is_kebab, is_screaming, is_snake};
use serde_json::Value;
use strum::VariantArray as _;

#[test]
fn each_kind_of_list_is_written_in_one_way() {
    for code in Code::ALL {
        assert!(is_snake(code.name()), "{}: codes are snake_case", code.name());
    }
    for reason in ResetReason::VARIANTS {
        let name: &str = reason.into();
        assert!(is_snake(name), "{name}: reasons are snake_case");
        assert_eq!(
            serde_json::to_value(reason).unwrap(),
            name,
            "the name in metrics differs from the one in JSON"
        );
    }
    for kind in StreamKind::VARIANTS {
        let name: &str = kind.into();
        assert!(is_snake(name), "{name}: kinds are snake_case");
    }
    for component in schemas::components() {
        if let Some(event) = component.event {
            let name = event.split_once('.').map_or(event, |(prefix, name)| {
                assert!(is_snake(prefix), "{event}: the prefix is not snake_case");
                name
            });
            assert!(is_kebab(name), "{event}: names of events are kebab-case");
        }
        let mut statuses = Vec::new();
        collect_statuses(component.name, &component.schema, &mut statuses);
        for status in statuses {
            assert!(is_screaming(status), "{}: {status}: statuses are SCREAMING_SNAKE_CASE", component.name);
        }
    }
}

/// Collects the values of every list whose field or component is named as a status.
fn collect_statuses<'a>(name: &str, schema: &'a Value, statuses: &mut Vec<&'a str>) {
    if name.to_ascii_lowercase().ends_with("status") {
        let listed = schema["enum"].as_array().into_iter().flatten();
        let described = schema["oneOf"].as_array().into_iter().flatten().map(|one| &one["const"]);
        statuses.extend(listed.chain(described).filter_map(Value::as_str));
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        collect_statuses(name, field, statuses);
    }
    if let Some(items) = schema.get("items") {
        collect_statuses(name, items, statuses);
    }
}
