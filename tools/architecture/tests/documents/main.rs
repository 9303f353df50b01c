//! The documents say what the code does.

mod references;
mod settings;
mod signals;

use std::{collections::BTreeSet, fmt::Debug, fs, path::Path};

use atrium_architecture::tree::{files, root};

/// A file of the checkout.
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect("the file is there")
}

/// The Rust files below `folder`: paths from the root, and texts.
fn sources(folder: &str) -> Vec<(String, String)> {
    let name = |file: &Path| file.strip_prefix(root()).expect("a path below the root").display().to_string();
    let files = files(&root().join(folder), &["rs"]).expect("the folder");
    files.iter().map(|file| (name(file), fs::read_to_string(file).expect("a text"))).collect()
}

/// Fails with what is in one of the two only.
fn assert_same<T: Ord + Debug>(document: &str, documented: &BTreeSet<T>, code: &str, known: &BTreeSet<T>) {
    let only_documented: Vec<_> = documented.difference(known).collect();
    let only_known: Vec<_> = known.difference(documented).collect();
    assert!(
        only_documented.is_empty() && only_known.is_empty(),
        "only in {document}: {only_documented:#?}\nonly in {code}: {only_known:#?}"
    );
}
