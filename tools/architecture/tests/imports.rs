//! Imports run one way: each crate uses only crates that stand below it, and inside a crate no file imports upward in
//! the layers, nor in a circle.

use std::fs;

use atrium_architecture::{
    graph::{circles, upward},
    grouping::faults,
    krate::Krate,
    tree::{files, root},
};

/// A crate: its folder, the crates of this workspace that its product code may use (its tests may use the harness as
/// well), and its top-level modules in layers, the highest first. A module imports from its own layer and from those
/// below it.
struct Rules {
    folder: &'static str,
    uses: &'static [&'static str],
    layers: &'static [&'static [&'static str]],
}

/// All crates, the highest first.
const CRATES: &[Rules] = &[Rules {
    folder: "api",
    uses: &["atrium-shared"],
    layers: &[
        &["server"],
        &["routes"],
        &["schemas"],
        &[
            "api_keys",
            "audit",
            "auth",
            "chat",
            "configuration",
            "invitations",
            "members",
            "operations",
            "organizations",
            "pages",
            "projects",
        ],
        &["state"],
        &["live"],
        &["limits"],
        &["http"],
    ],
}];

#[test]
fn every_crate_has_rules() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the workspace");
    let (_, members) = manifest.split_once("members = [").expect("a list of members");
    let (members, _) = members.split_once(']').expect("its end");
    let mut members: Vec<&str> = members
        .split(',')
        .map(|member| member.trim().trim_matches('"'))
        .filter(|member| !member.is_empty())
        .collect();
    let mut ruled: Vec<&str> = CRATES.iter().map(|rules| rules.folder).collect();
    members.sort_unstable();
    ruled.sort_unstable();
    assert_eq!(members, ruled, "the workspace's members (left) and the crates with rules (right) differ");
}

#[test]
fn a_crate_uses_only_crates_below_it() {
    for Rules { folder, uses, .. } in CRATES {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("a manifest");
        let section = manifest.split("\n[").find(|section| section.starts_with("dependencies]"));
        let used = section.unwrap_or_default().lines().filter(|line| line.starts_with("atrium-"));
        for dependency in used.map(|line| line.split(['.', ' ', '=']).next().unwrap_or_default()) {
            assert!(uses.contains(&dependency), "{folder} may not depend on {dependency}");
        }
    }
}

#[test]
fn no_file_imports_upward_or_in_a_circle() {
    let mut wrong = Vec::new();
    for Rules { folder, layers, .. } in CRATES {
        let source = root().join(folder).join("src");
        let file = if source.join("lib.rs").exists() { "lib.rs" } else { "main.rs" };
        let krate = Krate::read(&source.join(file)).expect("a crate");
        let imports = krate.imports();
        wrong.extend(circles(&imports).into_iter().map(|circle| format!("{folder}: {circle}")));
        let upward = upward(krate.modules(), &imports, layers);
        wrong.extend(upward.into_iter().map(|import| format!("{folder}: {import}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_stand_in_three_groups() {
    let mut wrong = Vec::new();
    for file in files(&root(), &["rs"]).expect("the checkout") {
        let source = fs::read_to_string(&file).expect("a file");
        let found = faults(&source).expect("Rust");
        wrong.extend(found.into_iter().map(|fault| format!("{}:{fault}", file.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
