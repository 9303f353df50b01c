//! A name for PostgreSQL and Redis that can be taken away: the processes that use it have a hosts file of their own,
//! and ask nobody else.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::mounts::Mounts;

/// The name. Below `test`, which no server of names knows ([RFC 6761](https://www.rfc-editor.org/rfc/rfc6761)).
const NAME: &str = "servers.atrium.test";

/// The names of some processes.
#[derive(Debug)]
pub struct Names {
    mounts: Mounts,
    hosts: PathBuf,
}

impl Names {
    /// Makes them; the name is there at first. The files are kept in `folder`.
    ///
    /// # Errors
    /// When this machine lets us mount nothing.
    pub async fn make(folder: &Path) -> anyhow::Result<Self> {
        let (hosts, services) = (folder.join("hosts"), folder.join("nsswitch.conf"));
        std::fs::write(&services, "hosts: files\n")?;
        std::fs::write(&hosts, "")?;
        let script = "mount --bind \"$1\" /etc/hosts; mount --bind \"$2\" /etc/nsswitch.conf";
        let mounts = Mounts::make(folder, script, [hosts.as_os_str(), services.as_os_str()]).await?;
        let names = Self { mounts, hosts };
        names.put_back()?;
        Ok(names)
    }

    /// The namespace in which the name is known.
    #[must_use]
    pub fn mounts(&self) -> &Mounts {
        &self.mounts
    }

    /// The address of a server on the loopback address, by the name.
    #[must_use]
    pub fn spell(&self, url: &str) -> String {
        url.replacen("@127.0.0.1:", &format!("@{NAME}:"), 1)
    }

    /// Nobody knows the name any more.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn take_away(&self) -> anyhow::Result<()> {
        self.write("")
    }

    /// The name is known again.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn put_back(&self) -> anyhow::Result<()> {
        self.write(&format!("127.0.0.1 {NAME}\n"))
    }

    /// The same file, not another one in its place: that one is what is mounted.
    fn write(&self, lines: &str) -> anyhow::Result<()> {
        std::fs::write(&self.hosts, lines).context("cannot write the hosts file")
    }
}
