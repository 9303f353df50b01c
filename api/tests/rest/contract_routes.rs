//! Compares the contract with the code, in both directions.

use std::collections::{BTreeMap, BTreeSet};

use atrium_api::{http::problem::Code, routes};
use atrium_contract::Contract;
use atrium_harness::checkout::Checkout;
use atrium_shared::audit::Action;
use serde_json::Value;

#[test]
fn routes_and_the_operations_of_the_contract_match() {
    // The pages of the web app are no part of the contract.
    let routed: BTreeSet<_> = routes::table()
        .iter()
        .filter(|route| route.template.starts_with("/v1/") || route.template.starts_with("/.well-known/"))
        .map(|route| (route.method.to_string(), route.template.to_owned()))
        .collect();
    let contract = Contract::load().unwrap();
    let documented: BTreeSet<_> =
        contract.operations().into_iter().map(|(method, template)| (method.to_string(), template)).collect();
    let undocumented: Vec<_> = routed.difference(&documented).collect();
    let unrouted: Vec<_> = documented.difference(&routed).collect();
    assert!(
        undocumented.is_empty() && unrouted.is_empty(),
        "in the route table, but not in docs/api/openapi.yaml: {undocumented:#?}\n\
         in docs/api/openapi.yaml, but not in the route table: {unrouted:#?}"
    );
}

#[test]
fn problem_codes_and_the_error_catalog_match() {
    let file = Checkout::find().unwrap().openapi().with_file_name("error-catalog.md");
    let catalog = std::fs::read_to_string(file).unwrap();
    let mut documented = BTreeSet::new();
    for section in catalog.split("\n## ").skip(1) {
        let row = |name: &str| {
            let start = format!("**{name}:** ");
            let mut rows = section.lines().filter_map(|line| line.strip_prefix(&start));
            match (rows.next(), rows.next()) {
                (Some(text), None) => text.to_owned(),
                _ => panic!("expected exactly one row of {name} in the section {section}"),
            }
        };
        let heading = section.lines().next().unwrap().to_owned();
        assert!(row("Meaning").len() > 10 && row("What to do").len() > 10, "{heading} explains nothing");
        documented.insert((heading, row("Title"), row("Retry")));
    }
    let known: BTreeSet<_> = Code::ALL
        .iter()
        .map(|code| {
            let heading = format!("`{}` ({})", code.name(), code.status().as_u16());
            (heading, code.title().to_owned(), code.retry().to_owned())
        })
        .collect();
    let unknown: Vec<_> = documented.difference(&known).collect();
    let missing: Vec<_> = known.difference(&documented).collect();
    assert!(
        unknown.is_empty() && missing.is_empty(),
        "only in docs/api/error-catalog.md: {unknown:#?}\nonly in http/problem.rs: {missing:#?}"
    );
    for code in Code::ALL {
        assert!(
            code.retry().starts_with("Safe"),
            "{}: the retry text does not start with \"Safe\"",
            code.name()
        );
    }
}

#[test]
fn every_code_has_its_status_in_the_contract_and_some_operation_answers_with_it() {
    let contract = Contract::load().unwrap();
    let document = contract.document();
    let code = &document["components"]["schemas"]["ProblemCode"];
    let listed: Vec<_> = code["enum"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let documented: BTreeMap<_, _> = code["x-problems"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, problem)| (name.as_str(), problem["status"].as_u64().unwrap()))
        .collect();
    let known: BTreeMap<_, _> =
        Code::ALL.iter().map(|code| (code.name(), u64::from(code.status().as_u16()))).collect();
    assert_eq!(known, documented);
    assert_eq!(listed, known.into_keys().collect::<Vec<_>>());

    let mut used = BTreeSet::new();
    let unrouted = &document["x-unrouted-problem-codes"];
    let operations =
        document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
    for codes in operations.map(|operation| &operation["x-problem-codes"]).chain([unrouted]) {
        used.extend(codes.as_array().into_iter().flatten().map(|code| code.as_str().unwrap()));
    }
    assert_eq!(used.into_iter().collect::<Vec<_>>(), listed);
}

#[test]
fn only_public_routes_are_public_in_the_contract() {
    let contract = Contract::load().unwrap();
    for route in routes::table() {
        let method = route.method.as_str().to_ascii_lowercase();
        let Some(operation) = contract.document()["paths"][route.template].get(method.as_str()) else {
            assert_eq!(route.access, routes::Access::Public, "{} is a page", route.template);
            continue;
        };
        let open = operation["security"].as_array().is_some_and(Vec::is_empty);
        let public = route.access == routes::Access::Public;
        assert_eq!(
            open, public,
            "{} {}: `security` differs from the route table",
            route.method, route.template
        );
    }
}

#[test]
fn audit_actions_match_the_contract() {
    let contract = Contract::load().unwrap();
    let documented: Vec<_> = contract.document()["components"]["schemas"]["AuditAction"]["enum"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    let known: Vec<_> = Action::ALL.iter().map(|action| action.name()).collect();
    assert_eq!(known, documented);
}

#[test]
fn examples_of_problems_in_the_contract_match_the_codes() {
    fn collect<'a>(node: &'a Value, examples: &mut Vec<&'a Value>) {
        match node {
            Value::Object(fields) => {
                for (name, value) in fields {
                    if name == "application/problem+json" {
                        let named = value["examples"].as_object().into_iter().flatten();
                        examples.extend(named.map(|(_, example)| &example["value"]));
                        examples.extend(value.get("example"));
                    }
                    collect(value, examples);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, examples)),
            _ => {}
        }
    }
    let contract = Contract::load().unwrap();
    let mut examples = Vec::new();
    collect(contract.document(), &mut examples);
    assert!(examples.len() > 30, "only {} examples were found", examples.len());
    for example in examples {
        let named = Code::ALL.iter().find(|code| Some(code.name()) == example["code"].as_str());
        let code = named.unwrap_or_else(|| panic!("no such code: {example:#}"));
        assert_eq!(example["title"], code.title(), "{example:#}");
        assert_eq!(example["status"], code.status().as_u16(), "{example:#}");
        assert_eq!(example["type"], format!("/docs/errors#{}", code.name()), "{example:#}");
    }
}
