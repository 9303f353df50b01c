//! Which PostgreSQL and Redis binaries to use: found on this machine, else installed from its packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;

use crate::packages;
use crate::screen::Screen;
use crate::version::Version;

/// PostgreSQL's binaries.
#[derive(Clone, Debug)]
pub struct PostgresBinaries {
    /// The server.
    pub postgres: PathBuf,
    /// Makes a data directory.
    pub initdb: PathBuf,
    /// The server's version.
    pub version: Version,
}

/// The Redis or Valkey server.
#[derive(Clone, Debug)]
pub struct RedisBinary {
    /// The server.
    pub server: PathBuf,
    /// `Redis` or `Valkey`.
    pub product: &'static str,
    /// The server's version.
    pub version: Version,
}

/// The oldest PostgreSQL that works.
const POSTGRES_SINCE: u32 = 15;
/// The products that speak Redis Streams, with the oldest version of each that works.
const REDIS_SINCE: [(&str, &str, u32); 2] = [("Redis", "redis-server", 7), ("Valkey", "valkey-server", 8)];

const ADVICE: &str = "\
On Debian or Ubuntu:  sudo apt-get update && sudo apt-get install -y postgresql redis-server
Where these are older than PostgreSQL 15 or Redis 7, use the PostgreSQL and Redis projects' own packages,
or, for `make dev`, servers that run already: set ATRIUM_DATABASE_URL (a role that may create roles and databases)
and ATRIUM_REDIS_URL, for example
  ATRIUM_DATABASE_URL=postgres://postgres:secret@127.0.0.1:5432/atrium ATRIUM_REDIS_URL=redis://127.0.0.1:6379/0";

impl PostgresBinaries {
    /// Looks in `PATH`, in Debian's folders and where `pg_config` points; takes the newest that is new enough.
    #[must_use]
    pub fn find() -> Option<Self> {
        let found = Self::newest()?;
        (found.version.major >= POSTGRES_SINCE).then_some(found)
    }

    fn newest() -> Option<Self> {
        let mut folders = path_folders();
        folders.extend(subfolders(Path::new("/usr/lib/postgresql")).map(|version| version.join("bin")));
        if let Some(folder) = printed(Command::new("pg_config").arg("--bindir")) {
            folders.push(PathBuf::from(folder.trim()));
        }
        folders.iter().filter_map(|folder| Self::in_folder(folder)).max_by_key(|found| found.version)
    }

    fn in_folder(folder: &Path) -> Option<Self> {
        let (postgres, initdb) = (folder.join("postgres"), folder.join("initdb"));
        if !postgres.is_file() || !initdb.is_file() {
            return None;
        }
        let version = Version::of_postgres(&printed(Command::new(&postgres).arg("--version"))?)?;
        Some(Self { postgres, initdb, version })
    }
}

impl RedisBinary {
    /// Looks in `PATH` and the usual folders for either product.
    #[must_use]
    pub fn find() -> Option<Self> {
        let mut folders = path_folders();
        folders.extend(["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(PathBuf::from));
        REDIS_SINCE.into_iter().find_map(|(product, binary, since)| {
            folders.iter().map(|folder| folder.join(binary)).find_map(|server| {
                let version = server
                    .is_file()
                    .then(|| printed(Command::new(&server).arg("--version")))
                    .flatten()
                    .and_then(|printed| Version::of_redis(&printed))?;
                (version.major >= since).then_some(Self { server, product, version })
            })
        })
    }
}

/// What a stack still has to find; the other half runs elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// PostgreSQL is wanted.
    pub postgres: bool,
    /// Redis or Valkey is wanted.
    pub redis: bool,
}

/// Installs what is wanted and missing, where this machine lets us.
///
/// # Errors
/// When something is missing still, with what to install.
pub fn ensure(wanted: Wanted, screen: &Screen) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    if wanted.postgres && PostgresBinaries::find().is_none() {
        missing.push(("PostgreSQL 15 or newer", "postgresql"));
    }
    if wanted.redis && RedisBinary::find().is_none() {
        missing.push(("Redis 7 (or Valkey 8) or newer", "redis-server"));
    }
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|(name, _)| *name).collect();
    let names = names.join(" and ");
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    if !packages::may_install() {
        bail!("{names}: not found on this machine.\n{ADVICE}");
    }
    screen
        .note(&format!("{names}: not found; installing {} from this system's packages", packages.join(" ")));
    if let Err(error) = packages::install(&packages) {
        bail!("{names}: not found, and installing failed: {error:#}.\n{ADVICE}");
    }
    let still = (wanted.postgres && PostgresBinaries::find().is_none())
        || (wanted.redis && RedisBinary::find().is_none());
    if still {
        bail!("{names}: this system's packages do not hold them.\n{ADVICE}");
    }
    Ok(())
}

/// The folders of `PATH`.
pub(crate) fn path_folders() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

fn subfolders(folder: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn printed(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
