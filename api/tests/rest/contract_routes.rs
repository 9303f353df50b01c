//! The contract and the code, held against each other in both directions.

use std::collections::BTreeSet;

use atrium_api::{http::problem::Code, routes};
use atrium_contract::Contract;
use atrium_harness::checkout::Checkout;
use atrium_shared::audit::Action;

#[test]
fn every_route_is_in_the_contract_and_every_operation_is_routed() {
    let routed: BTreeSet<_> =
        routes::table().iter().map(|route| (route.method.to_string(), route.template.to_owned())).collect();
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
fn every_code_is_in_the_catalog_and_every_entry_is_a_code() {
    let file = Checkout::find().unwrap().openapi().with_file_name("error-catalog.md");
    let catalog = std::fs::read_to_string(file).unwrap();
    let documented: BTreeSet<_> =
        catalog.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_owned).collect();
    let known: BTreeSet<_> =
        Code::ALL.iter().map(|code| format!("`{}` ({})", code.name(), code.status().as_u16())).collect();
    assert_eq!(known, documented, "http/problem.rs (left) and docs/api/error-catalog.md (right) differ");
}

#[test]
fn public_routes_are_public_in_the_contract_and_no_others() {
    let contract = Contract::load().unwrap();
    for route in routes::table() {
        let method = route.method.as_str().to_ascii_lowercase();
        let operation = &contract.document()["paths"][route.template][method.as_str()];
        let open = operation["security"].as_array().is_some_and(Vec::is_empty);
        let public = route.access == routes::Access::Public;
        assert_eq!(
            open, public,
            "{} {}: `security` is not as the route table has it",
            route.method, route.template
        );
    }
}

#[test]
fn every_action_of_the_audit_log_is_in_the_contract_and_no_others() {
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
