//! Circles among files, and imports that point upward.

use std::collections::{BTreeMap, BTreeSet};

use crate::krate::Import;

/// The circles: each a set of modules that all reach one another, with the imports among them as text.
#[must_use]
pub fn circles(imports: &BTreeSet<Import>) -> Vec<String> {
    let mut targets: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for import in imports {
        targets.entry(&import.from).or_default().insert(&import.to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        targets.keys().map(|from| (*from, reachable(&targets, from))).collect();
    let mut seen = BTreeSet::new();
    let mut circles = Vec::new();
    for (module, theirs) in &reached {
        if !theirs.contains(module) || seen.contains(module) {
            continue;
        }
        let members: BTreeSet<&str> = theirs
            .iter()
            .copied()
            .filter(|other| reached.get(other).is_some_and(|back| back.contains(module)))
            .collect();
        let inside = |name: &String| members.contains(name.as_str());
        let arrows: Vec<String> = imports
            .iter()
            .filter(|import| inside(&import.from) && inside(&import.to))
            .map(|import| format!("  {} -> {}: {} ({})", import.from, import.to, import.name, import.at))
            .collect();
        circles.push(format!("{} files import each other:\n{}", members.len(), arrows.join("\n")));
        seen.extend(members);
    }
    circles
}

fn reachable<'a>(targets: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &'a str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        for target in targets.get(module).into_iter().flatten() {
            if reached.insert(*target) {
                open.push(target);
            }
        }
    }
    reached
}

/// The imports that point from a lower layer to a higher one, and the modules that no layer names. `layers` lists the
/// top-level modules, the highest layer first; modules of one layer may import each other.
#[must_use]
pub fn upward<'a>(
    modules: impl Iterator<Item = &'a str>,
    imports: &BTreeSet<Import>,
    layers: &[&[&str]],
) -> Vec<String> {
    let layer = |module: &str| {
        let room = module.split("::").next().unwrap_or_default();
        layers.iter().position(|layer| layer.contains(&room))
    };
    let unnamed = modules
        .filter(|module| !module.is_empty() && layer(module).is_none())
        .map(|module| format!("no layer names the module {module}"));
    let wrong = imports.iter().filter(|import| match (layer(&import.from), layer(&import.to)) {
        (Some(from), Some(to)) => to < from,
        // The root of a crate is above all its modules.
        _ => !import.from.is_empty() && import.to.is_empty(),
    });
    let upward = wrong.map(|import| {
        format!(
            "{} imports {} of {}, which stands above it ({})",
            import.from, import.name, import.to, import.at
        )
    });
    unnamed.chain(upward).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(pairs: &[(&str, &str)]) -> BTreeSet<Import> {
        let import = |(from, to): &(&str, &str)| Import {
            from: (*from).to_owned(),
            to: (*to).to_owned(),
            name: "Name".to_owned(),
            at: "file:1".to_owned(),
        };
        pairs.iter().map(import).collect()
    }

    #[test]
    fn a_circle_names_its_members_and_no_others() {
        let found = circles(&imports(&[("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("2 files"), "{}", found[0]);
        assert!(found[0].contains("b -> c") && found[0].contains("c -> b") && !found[0].contains("c -> d"));
        assert!(circles(&imports(&[("a", "b"), ("a", "c"), ("b", "c")])).is_empty());
    }

    #[test]
    fn an_import_from_a_higher_layer_and_a_module_without_one_are_found() {
        let layers: &[&[&str]] = &[&["routes"], &["projects", "members"], &["http"]];
        let found = upward(
            ["routes", "projects::list", "http", "other"].into_iter(),
            &imports(&[("routes", "projects::list"), ("projects::list", "members"), ("http", "routes")]),
            layers,
        );
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("other") && found[1].contains("http imports Name of routes"));
    }
}
