//! The texts of the project do without the phrases of `phrases.txt`.

use std::fs;

use atrium_architecture::{
    phrases::{find, parse},
    tree::{files, root},
};

/// What is read: code, SQL, scripts, texts, settings.
const EXTENSIONS: &[&str] = &[
    "css", "html", "js", "json", "lua", "md", "mjs", "py", "rs", "sh", "sql", "toml", "ts", "txt", "yaml",
    "yml",
];

/// The list itself, and the tests of its parser.
const EXEMPT: &[&str] = &["tools/architecture/tests/phrases.txt", "tools/architecture/src/phrases.rs"];

#[test]
fn no_text_uses_a_phrase_that_stops_a_reader() {
    let phrases = parse(include_str!("phrases.txt")).expect("the list");
    assert!(!phrases.is_empty());
    let mut read = 0;
    let mut found = Vec::new();
    for file in files(&root(), EXTENSIONS).expect("the checkout") {
        let name = file.strip_prefix(root()).expect("a path below the root").display().to_string();
        if EXEMPT.contains(&name.as_str()) || name.ends_with("package-lock.json") {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a text");
        read += 1;
        for (line, phrase) in find(&text, &phrases) {
            found.push(format!("{name}:{line}: \"{}\": {}", phrase.words, phrase.instead));
        }
    }
    assert!(read > 100, "only {read} files were read");
    assert!(found.is_empty(), "{} phrases to rewrite:\n{}", found.len(), found.join("\n"));
}
