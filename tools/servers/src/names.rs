//! A host name for PostgreSQL and Redis that can be made unresolvable: the processes that use it have a hosts file of
//! their own, and no other name service.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::mounts::Mounts;

/// The name. Below `test`, which no DNS server resolves ([RFC 6761](https://www.rfc-editor.org/rfc/rfc6761)).
const NAME: &str = "servers.atrium.test";

/// The name service of some processes.
#[derive(Debug)]
pub struct Names {
    mounts: Mounts,
    hosts: PathBuf,
}

impl Names {
    /// Sets it up; the name resolves at first. The files are kept in `folder`.
    ///
    /// # Errors
    /// When this machine does not allow mounts.
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

    /// The namespace in which the name resolves.
    #[must_use]
    pub fn mounts(&self) -> &Mounts {
        &self.mounts
    }

    /// The address of a server with the name instead of the loopback address.
    #[must_use]
    pub fn with_name(&self, url: &str) -> String {
        url.replacen("@127.0.0.1:", &format!("@{NAME}:"), 1)
    }

    /// Makes the name unresolvable.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn take_away(&self) -> anyhow::Result<()> {
        self.write("")
    }

    /// Makes the name resolvable again.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn put_back(&self) -> anyhow::Result<()> {
        self.write(&format!("127.0.0.1 {NAME}\n"))
    }

    /// Writes into the same file, because that one is mounted: a replacement would not be.
    fn write(&self, lines: &str) -> anyhow::Result<()> {
        std::fs::write(&self.hosts, lines).context("cannot write the hosts file")
    }
}
