//! `docs/settings.md`, the readers of the settings, and the catalog of configuration keys.
//!
//! Where no variable has a value that can be used, a reader's error names every variable that it reads, with the
//! default if there is one. So the readers themselves say what the document must contain.

use std::collections::{BTreeMap, BTreeSet};

use atrium_architecture::{
    markdown::{rows, section},
    tokens::{calls_on, strings},
};
use atrium_shared::{
    configuration::catalog::{Setter, all},
    settings::Reader,
};

use super::{assert_same, read, sources};

/// A value that no setting accepts.
const UNUSABLE: &str = "\u{fffd}";

/// Read by debug builds alone, for the crash matrix.
const FOR_DEBUG_BUILDS: &str = "ATRIUM_CRASH_POINTS";

/// What the column `who` calls a program, or a command that needs more; and how it reads its settings.
type Program = (&'static str, fn(Reader) -> String);

const PROGRAMS: [Program; 4] = [
    ("api", |mut reader| {
        let settings = reader.common("api").zip(reader.api());
        mistakes(reader, settings)
    }),
    ("workers", |mut reader| {
        let settings = reader.common("workers").zip(reader.workers());
        mistakes(reader, settings)
    }),
    ("ctl", |mut reader| {
        let settings = reader.ctl();
        mistakes(reader, settings)
    }),
    ("`ctl dead-letters`", |mut reader| {
        let settings = reader.dead_letters();
        mistakes(reader, settings)
    }),
];

fn mistakes<T>(reader: Reader, settings: Option<T>) -> String {
    reader.finish(settings).err().expect("no setting can be used").to_string()
}

/// The variables in an error of a reader, each with its example.
fn variables(mistakes: &str) -> impl Iterator<Item = (&str, &str)> {
    mistakes.lines().filter_map(|line| line.rsplit_once("; for example ")?.1.split_once('='))
}

/// The names of variables among the string literals of a source.
fn names(source: &str) -> Vec<String> {
    let strings = strings(source).expect("Rust");
    strings.into_iter().filter(|text| text.starts_with("ATRIUM_") && !text.contains([' ', '='])).collect()
}

/// The default as the document writes it.
fn shown(program: &str, default: &str) -> String {
    let unique = format!("{program}-{}-", std::process::id());
    match default {
        "" => "none".to_owned(),
        default if default.starts_with(&unique) => "`<program>-<process id>-<random>`".to_owned(),
        default => format!("`{default}`"),
    }
}

/// The rows of the first table, one for each variable: its name, who reads it, its default.
fn documented() -> BTreeSet<[String; 3]> {
    let document = read("docs/settings.md");
    let table = document.split("\n## ").next().expect("a part before the first section");
    let mut documented = BTreeSet::new();
    for cells in rows(table) {
        for name in cells[0].split(", ").map(|name| name.trim_matches('`')) {
            let new = documented.insert([name, cells[1], cells[2]].map(str::to_owned));
            assert!(new, "{name} is there twice");
        }
    }
    documented
}

#[test]
fn the_document_lists_what_each_program_reads_with_its_default() {
    let mut readers: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
    for (program, read_settings) in PROGRAMS {
        let names = names(&read("shared/src/settings.rs")).into_iter();
        let unusable = read_settings(Reader::from_variables(names.map(|name| (name, UNUSABLE.to_owned()))));
        let unset = read_settings(Reader::from_variables([]));
        let required: BTreeSet<&str> = variables(&unset).map(|(name, _)| name).collect();
        for (name, example) in variables(&unusable) {
            let default =
                if required.contains(name) { "required".to_owned() } else { shown(program, example) };
            readers.entry((name.to_owned(), default)).or_default().push(program);
        }
    }
    let known = readers.into_iter().map(|((name, default), who)| [name, who.join(", "), default]).collect();
    let documented = documented().into_iter().filter(|[_, who, _]| who != "migrate").collect();
    assert_same("docs/settings.md", &documented, "shared/src/settings.rs", &known);
}

#[test]
fn the_document_lists_what_the_migration_reads() {
    let known = sources("migrations/src").iter().flat_map(|(_, source)| names(source)).collect();
    let documented = documented().into_iter().filter(|[_, who, _]| who == "migrate").map(|[name, ..]| name);
    assert_same("docs/settings.md", &documented.collect(), "migrations/src", &known);
}

#[test]
fn programs_read_exactly_the_documented_settings() {
    for (main, expected) in [
        ("api/src/main.rs", "common api finish"),
        ("workers/src/main.rs", "common workers finish"),
        ("tools/ctl/src/main.rs", "ctl dead_letters finish"),
    ] {
        let calls = calls_on("reader", &read(main)).expect("Rust");
        assert_eq!(calls.join(" "), expected, "what {main} calls on its reader");
    }
    let shared = sources("shared/src").into_iter().filter(|(file, _)| file != "shared/src/settings.rs");
    let others = ["api/src", "workers/src", "tools/ctl/src"].into_iter().flat_map(sources).chain(shared);
    for (file, source) in others {
        for name in names(&source) {
            assert_eq!(name, FOR_DEBUG_BUILDS, "{file} reads a variable past shared/src/settings.rs");
        }
    }
}

#[test]
fn the_document_lists_every_configuration_key_with_its_default_and_scopes() {
    let document = read("docs/settings.md");
    let table = section(&document, "## Configuration").expect("the section");
    let documented: BTreeSet<String> = rows(table).iter().map(|cells| cells[..3].join(" | ")).collect();
    let known = all().iter().map(|key| {
        let scopes = serde_json::to_value(key.scopes).expect("names");
        let scopes: Vec<&str> =
            scopes.as_array().into_iter().flatten().filter_map(|scope| scope.as_str()).collect();
        let operator = if key.setter == Setter::Operator && scopes.len() > 1 { " (operator)" } else { "" };
        format!("`{}` | `{}` | {}{operator}", key.name, key.builtin, scopes.join(", "))
    });
    assert_same("docs/settings.md", &documented, "shared/src/configuration/catalog.rs", &known.collect());
}
