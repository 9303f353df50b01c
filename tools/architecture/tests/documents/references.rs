//! What the documents refer to is there: files and sections, names in the code, targets of `make`, commands.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use atrium_architecture::{
    markdown::{anchors, code, links},
    tree::{files, root},
};
use syn::{Fields, Item, Type};

use super::read;

/// All documents: paths from the root, and texts.
fn documents() -> Vec<(String, String)> {
    let files = files(&root(), &["md"]).expect("the checkout");
    let name =
        |file: &PathBuf| file.strip_prefix(root()).expect("a path below the root").display().to_string();
    files.iter().map(|file| (name(file), fs::read_to_string(file).expect("a text"))).collect()
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn links_lead_to_files_and_sections_that_exist() {
    let mut wrong = Vec::new();
    for (document, text) in documents() {
        for link in links(&text).into_iter().filter(|link| !link.starts_with("https://")) {
            let (path, section) =
                link.split_once('#').map_or((link, None), |(path, name)| (path, Some(name)));
            let target = match path {
                "" => root().join(&document),
                path => root().join(&document).with_file_name(path),
            };
            let has_section = |name: &str| {
                fs::read_to_string(&target)
                    .is_ok_and(|text| anchors(&text).iter().any(|anchor| anchor == name))
            };
            if !target.exists() || !section.is_none_or(has_section) {
                wrong.push(format!("{document}: {link}"));
            }
        }
    }
    assert_none(&wrong);
}

/// `a/{b,c}` as `a/b` and `a/c`.
fn alternatives(path: &str) -> Vec<String> {
    let braces = path.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)));
    match braces {
        Some((before, (inside, after))) => {
            inside.split(',').map(|inside| format!("{before}{inside}{after}")).collect()
        }
        None => vec![path.to_owned()],
    }
}

#[test]
fn paths_in_documents_exist() {
    let folders: BTreeSet<String> = fs::read_dir(root())
        .expect("the checkout")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && name != "target")
        .collect();
    let is_path = |code: &&str| code.split_once('/').is_some_and(|(first, _)| folders.contains(first));
    let is_example = |path: &String| path.contains(['…', ' ', '*']) || path.contains("NNNN");
    let mut wrong = Vec::new();
    for (document, text) in documents() {
        let paths = code(&text).into_iter().filter(is_path).flat_map(alternatives);
        for path in paths.filter(|path| !is_example(path)) {
            if !root().join(&path).exists() {
                wrong.push(format!("{document}: {path}"));
            }
        }
    }
    assert_none(&wrong);
}

/// Names of tests, tables, metrics and so on. The changelog also tells former names.
#[test]
fn names_in_documents_are_names_in_the_code() {
    let code_files = files(&root(), &["lua", "mjs", "rs", "sql", "yaml"]).expect("the checkout");
    let sources: Vec<String> =
        code_files.iter().map(|file| fs::read_to_string(file).expect("a text")).collect();
    let not_in_word = |letter: char| !letter.is_ascii_alphanumeric() && letter != '_';
    let known: BTreeSet<&str> = sources.iter().flat_map(|source| source.split(not_in_word)).collect();
    // The casing of a list is no name.
    let is_cased =
        |code: &str| code.starts_with("ATRIUM_") || !code.contains(|letter: char| letter.is_uppercase());
    let is_name = |code: &&str| code.contains('_') && !code.contains(not_in_word) && is_cased(code);
    let mut wrong = Vec::new();
    for (document, text) in documents().iter().filter(|(document, _)| document != "CHANGELOG.md") {
        let names = code(text).into_iter().filter(is_name);
        wrong.extend(names.filter(|name| !known.contains(name)).map(|name| format!("{document}: {name}")));
    }
    assert_none(&wrong);
}

/// The words that follow `program` in what is written as code.
fn commands(program: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for (document, text) in documents() {
        for line in code(&text) {
            let words: Vec<&str> = line.split([' ', '`']).take_while(|word| *word != "#").collect();
            let called = words.iter().position(|word| word.rsplit('/').next() == Some(program));
            if let Some(at) = called {
                let arguments = words[at + 1..].iter().filter(|word| !word.is_empty());
                found.push((document.clone(), arguments.map(|word| (*word).to_owned()).collect()));
            }
        }
    }
    assert!(!found.is_empty(), "no document uses {program}");
    found
}

#[test]
fn targets_and_variables_of_make_exist() {
    let makefile = read("Makefile");
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name)
        .filter(|name| {
            !name.is_empty() && name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-')
        })
        .collect();
    let mut wrong = Vec::new();
    for (document, words) in commands("make") {
        let has_target = words.first().is_some_and(|word| targets.contains(word.as_str()));
        let mut variables = words.iter().filter_map(|word| word.split_once('=')).map(|(name, _)| name);
        if !has_target || !variables.all(|name| makefile.contains(&format!("$({name})"))) {
            wrong.push(format!("{document}: make {}", words.join(" ")));
        }
    }
    assert_none(&wrong);
}

/// The subcommands of a program, each with its own: the enum `Command` of its main file, whose variants may hold the
/// `Command` of a module.
fn subcommands(main: &str) -> BTreeMap<String, BTreeSet<String>> {
    let nested = |module: &str| {
        let file = root().join(main).with_file_name(format!("{module}.rs"));
        let variants = fs::read_to_string(file).map(|source| variants(&source)).unwrap_or_default();
        variants.into_iter().map(|(name, _)| name).collect()
    };
    variants(&read(main))
        .into_iter()
        .map(|(name, module)| (name, module.as_deref().map(nested).unwrap_or_default()))
        .collect()
}

/// The variants of the enum `Command` as clap names them, and the modules whose `Command` they hold.
fn variants(source: &str) -> Vec<(String, Option<String>)> {
    let items = syn::parse_file(source).expect("Rust").items;
    let command = items.into_iter().find_map(|item| match item {
        Item::Enum(found) if found.ident == "Command" => Some(found),
        _ => None,
    });
    let variant = |variant: syn::Variant| {
        let module = match &variant.fields {
            Fields::Unnamed(fields) => match fields.unnamed.first().map(|field| &field.ty) {
                Some(Type::Path(path))
                    if path.path.segments.last().is_some_and(|last| last.ident == "Command") =>
                {
                    path.path.segments.first().map(|module| module.ident.to_string())
                }
                _ => None,
            },
            _ => None,
        };
        let mut name = String::new();
        for letter in variant.ident.to_string().chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.extend(letter.to_lowercase());
        }
        (name, module)
    };
    command.into_iter().flat_map(|command| command.variants).map(variant).collect()
}

#[test]
fn subcommands_exist() {
    let mut wrong = Vec::new();
    for (program, main) in
        [("atrium-ctl", "tools/ctl/src/main.rs"), ("atrium-devstack", "tools/devstack/src/main.rs")]
    {
        let known = subcommands(main);
        assert!(known.len() > 2, "{main}: {known:?}");
        for (document, words) in commands(program) {
            let mut words = words.iter().filter(|word| *word != "--");
            let Some(command) = words.next() else { continue };
            let exists = known.get(command).is_some_and(|nested| {
                nested.is_empty() || words.next().is_none_or(|command| nested.contains(command))
            });
            if !exists {
                wrong.push(format!("{document}: {program} {command} …"));
            }
        }
    }
    assert_none(&wrong);
}
