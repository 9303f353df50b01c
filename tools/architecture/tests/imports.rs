//! Imports run one way: each crate uses only crates below it, and inside a crate no file imports upward in the layers,
//! nor in a circle.

use std::fs;

use atrium_architecture::{
    graph::{circles, upward},
    grouping::faults,
    krate::Krate,
    tree::{files, root},
};

/// A crate: its folder, the crates of this workspace that its product code may use (its tests may use the harness as
/// well), and its top-level modules in layers, the highest first. A module imports from its own layer and from those
/// below it. Without layers, only circles are looked for.
struct Rules {
    folder: &'static str,
    uses: &'static [&'static str],
    layers: &'static [&'static [&'static str]],
}

/// All crates, the highest first.
const CRATES: &[Rules] = &[
    Rules {
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
    },
    Rules {
        folder: "workers",
        uses: &["atrium-shared"],
        layers: &[
            &["chat", "config", "janitor", "relay", "saga", "signals"],
            &["consumer", "isolation", "shards"],
            &["timings"],
        ],
    },
    Rules { folder: "tools/ctl", uses: &["atrium-shared"], layers: &[] },
    Rules { folder: "tools/bench", uses: &["atrium-harness", "atrium-shared"], layers: &[] },
    Rules {
        folder: "tools/devstack",
        uses: &["atrium-chaos", "atrium-contract", "atrium-harness", "atrium-servers"],
        layers: &[],
    },
    Rules {
        folder: "tools/chaos",
        uses: &["atrium-contract", "atrium-harness", "atrium-servers", "atrium-shared"],
        layers: &[],
    },
    Rules {
        folder: "tools/harness",
        uses: &["atrium-contract", "atrium-migrations", "atrium-servers"],
        layers: &[],
    },
    Rules { folder: "tools/contract", uses: &[], layers: &[] },
    Rules { folder: "tools/queries", uses: &["atrium-servers"], layers: &[] },
    Rules { folder: "tools/servers", uses: &["atrium-migrations"], layers: &[] },
    Rules { folder: "tools/architecture", uses: &[], layers: &[] },
    Rules {
        folder: "shared",
        uses: &[],
        layers: &[
            &["configuration", "identity", "organizations"],
            &["saga"],
            &["audit"],
            &["db", "streams", "telemetry"],
            &["settings"],
            &["api_key", "lifecycle", "messages"],
            &["clock", "crash_point", "ids", "tenancy", "timings"],
        ],
    },
    Rules { folder: "migrations", uses: &[], layers: &[] },
];

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

/// A crate with a query that is not described yet does not compile, so the program that describes queries must compile
/// without such crates.
#[test]
fn the_program_that_describes_queries_needs_no_crate_with_queries() {
    let mut needed = vec!["tools/queries"];
    let mut next = 0;
    while let Some(&folder) = needed.get(next) {
        next += 1;
        let rules = CRATES.iter().find(|rules| rules.folder == folder).expect("rules");
        for used in rules.uses {
            let name = used.trim_start_matches("atrium-");
            let used =
                CRATES.iter().find(|rules| rules.folder.rsplit('/').next() == Some(name)).expect("rules");
            needed.push(used.folder);
        }
        for file in files(&root().join(folder).join("src"), &["rs"]).expect("a crate") {
            let source = fs::read_to_string(&file).expect("a file");
            let query = ["query!(", "query_as!(", "query_scalar!("].iter().any(|name| source.contains(name));
            assert!(!query, "{} holds a query, and `make queries` needs its crate", file.display());
        }
    }
    assert!(needed.contains(&"tools/servers"), "{needed:?}");
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
        if !layers.is_empty() {
            let upward = upward(krate.modules(), &imports, layers);
            wrong.extend(upward.into_iter().map(|import| format!("{folder}: {import}")));
        }
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
