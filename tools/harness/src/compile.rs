//! Builds Atrium's binaries next to this one; cargo shows its own progress.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use atrium_servers::process::Launch;

use crate::checkout::Checkout;

/// Builds in the profile of this executable, and returns the folder of the binaries.
///
/// # Errors
/// When cargo is missing or a crate does not compile.
pub async fn binaries(checkout: &Checkout) -> anyhow::Result<PathBuf> {
    let executable = std::env::current_exe()?;
    let folder = executable.parent().context("a program is in a folder")?.to_owned();
    let mut cargo = Launch::new("cargo", std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        // The whole workspace, as all targets of the Makefile build it: with the same features, so nothing is built
        // twice.
        .args(["build", "--workspace", "--bins", "--manifest-path"])
        .arg(checkout.root().join("Cargo.toml"))
        // In the process group of this process, so that Ctrl-C reaches both.
        .in_our_group();
    if is_release(&folder) {
        cargo = cargo.arg("--release");
    }
    let status = cargo.spawn().context("cannot start cargo")?.ended().await;
    if !status.success() {
        bail!("cargo build failed; see above");
    }
    Ok(folder)
}

fn is_release(folder: &Path) -> bool {
    folder.file_name().is_some_and(|name| name == "release")
}
