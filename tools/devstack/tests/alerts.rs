//! The alerts of `docs/alerts.yaml`, as Prometheus itself reads them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use atrium_servers::binaries::Promtool;
use serde_json::Value;

/// Where every metric is named.
const METRICS: &str = include_str!("../../../shared/src/telemetry/metrics.rs");

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}

fn read(name: &str) -> Value {
    let text = std::fs::read_to_string(file(name)).expect("the file is there");
    serde_saphyr::from_str(&text).expect("the file is YAML")
}

fn rules() -> Vec<Value> {
    let groups = read("alerts.yaml")["groups"].as_array().cloned().expect("groups");
    groups.iter().flat_map(|group| group["rules"].as_array().cloned().expect("rules")).collect()
}

#[test]
fn prometheus_raises_each_alert_when_it_should_and_only_then() {
    let Promtool { program } = Promtool::find().expect("`atrium-devstack exec` installs it");
    let output = Command::new(program)
        .args(["test", "rules"])
        .arg(file("alerts.test.yaml"))
        .output()
        .expect("promtool runs");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() {
    let names: BTreeSet<String> =
        rules().iter().map(|rule| rule["alert"].as_str().expect("a name").to_owned()).collect();
    let (mut fires, mut is_silent) = (BTreeSet::new(), BTreeSet::new());
    for test in read("alerts.test.yaml")["tests"].as_array().expect("tests") {
        for case in test["alert_rule_test"].as_array().expect("cases") {
            let name = case["alertname"].as_str().expect("a name").to_owned();
            let none = case["exp_alerts"].as_array().is_none_or(Vec::is_empty);
            if none { &mut is_silent } else { &mut fires }.insert(name);
        }
    }
    assert_eq!((&fires, &is_silent), (&names, &names));
}

/// An alert on a metric that does not exist never fires, even if its test passes.
#[test]
fn alerts_use_existing_metrics() {
    for rule in rules() {
        let expression = rule["expr"].as_str().expect("an expression");
        let words = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let metrics: Vec<&str> = words.filter(|word| word.starts_with("atrium_")).collect();
        assert!(!metrics.is_empty(), "{expression}");
        for metric in metrics {
            assert!(
                METRICS.contains(&format!("\"{metric}\"")),
                "{metric} is not a metric of Atrium: {expression}"
            );
        }
    }
}
