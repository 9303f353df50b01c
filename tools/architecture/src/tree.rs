//! The files of the checkout.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Folders without files of this project, at any depth.
const SKIPPED: &[&str] = &["target", "node_modules"];

/// The folder of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate lies two folders below the root").to_owned()
}

/// Every file below `folder` whose extension is one of `extensions`, sorted by path. Hidden folders and build
/// products are left out.
///
/// # Errors
/// When a folder cannot be read.
pub fn files(folder: &Path, extensions: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let entries = folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with('.') || SKIPPED.contains(&&*name) {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|found| extensions.iter().any(|wanted| found == *wanted)) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
