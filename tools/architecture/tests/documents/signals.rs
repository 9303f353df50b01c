//! `docs/signals.md`, the list of metrics, and the code that emits them.

use std::collections::{BTreeMap, BTreeSet};

use atrium_architecture::{markdown::rows, tokens::emissions};
use atrium_shared::telemetry::metrics::ALL;

use super::{assert_same, read, sources};

#[test]
fn the_document_lists_every_metric_with_its_kind_labels_and_meaning() {
    let document = read("docs/signals.md");
    let rows = rows(&document);
    let documented: BTreeSet<String> = rows.iter().map(|cells| cells.join(" | ")).collect();
    assert_eq!(documented.len(), rows.len(), "a row is there twice");
    let row = |name, kind, labels, meaning| format!("`{name}` | {kind} | {labels} | {meaning}");
    let known = ALL
        .iter()
        .map(|metric| row(metric.name, metric.kind.name(), metric.labels.join(", "), metric.meaning));
    assert_same("docs/signals.md", &documented, "shared/src/telemetry/metrics.rs", &known.collect());
}

#[test]
fn exactly_the_listed_metrics_are_emitted_with_their_labels() {
    let known: BTreeMap<&str, _> = ALL.iter().map(|metric| (metric.constant, metric)).collect();
    let mut emitted = BTreeSet::new();
    for (file, source) in ["api/src", "workers/src", "shared/src"].into_iter().flat_map(sources) {
        for emission in emissions(&source).unwrap_or_else(|error| panic!("{file}: {error:#}")) {
            let at = format!("{file}:{}: {}", emission.line, emission.constant);
            let metric =
                known.get(emission.constant.as_str()).unwrap_or_else(|| panic!("{at} is not in the list"));
            assert_eq!(emission.kind, metric.kind.name(), "{at} is of another kind");
            assert_eq!(emission.labels, metric.labels, "{at} has other labels");
            emitted.insert(emission.constant);
        }
    }
    let known = known.into_keys().map(str::to_owned).collect();
    assert_same("the code that emits metrics", &emitted, "shared/src/telemetry/metrics.rs", &known);
}
