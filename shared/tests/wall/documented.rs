//! The documents that a security reviewer signs name tests: they exist.

use std::path::Path;

const DOCUMENTS: [&str; 2] =
    [include_str!("../../../docs/security/tenancy.md"), include_str!("../../../SECURITY.md")];

#[test]
fn every_test_named_in_documents_exists() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut code = String::new();
    for folder in ["api/tests", "shared/tests", "workers/tests"] {
        read(&repository.join(folder), &mut code);
    }
    let quoted = DOCUMENTS.iter().flat_map(|document| document.split('`').skip(1).step_by(2));
    let named: Vec<_> = quoted.filter(|word| is_test(word)).collect();
    assert!(named.len() > 60, "{named:?}");
    let missing: Vec<_> = named.iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Names of tests are sentences.
fn is_test(word: &str) -> bool {
    word.matches('_').count() > 2 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn read(folder: &Path, code: &mut String) {
    for entry in std::fs::read_dir(folder).expect("a folder of tests") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            read(&path, code);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            code.push_str(&std::fs::read_to_string(&path).expect("code"));
        }
    }
}
