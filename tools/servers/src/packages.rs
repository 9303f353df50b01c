//! Installs system packages on Debian and Ubuntu, as root or where `sudo` needs no password.

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::account::is_root;

/// Whether packages can be installed without a password.
#[must_use]
pub fn may_install() -> bool {
    quiet("apt-get", &["--version"]) && (is_root() || quiet("sudo", &["-n", "true"]))
}

/// Installs packages; the package manager's output is shown as it comes, because it takes a while.
///
/// # Errors
/// When the package manager fails.
pub fn install(packages: &[&str]) -> anyhow::Result<()> {
    apt_get(&["update"])?;
    // Wait for another run of the package manager, such as the daily update.
    let options = ["-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends"];
    apt_get(&[options.as_slice(), packages].concat())
}

fn apt_get(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = if is_root() {
        Command::new("env")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "env"]);
        sudo
    };
    let status = command
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
        .args(arguments)
        .stdin(Stdio::null())
        .status()
        .context("cannot run apt-get")?;
    if !status.success() {
        bail!("`apt-get {}` ended with {status}", arguments.join(" "));
    }
    Ok(())
}

fn quiet(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
