//! Finds the binaries of PostgreSQL and Redis, and those that only tests need: PgBouncer, libfaketime and Prometheus.
//! What is missing is installed from this system's packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;

use crate::packages;
use crate::version::Version;

/// PostgreSQL's binaries.
#[derive(Clone, Debug)]
pub struct PostgresBinaries {
    /// The server.
    pub postgres: PathBuf,
    /// Creates a data directory.
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

/// The connection pooler.
#[derive(Clone, Debug)]
pub struct PgBouncerBinary {
    /// The server.
    pub server: PathBuf,
}

/// The library that gives a process another time of day.
#[derive(Clone, Debug)]
pub struct FakeTime {
    /// To be preloaded into the process.
    pub library: PathBuf,
}

/// The program that checks and tests Prometheus rules.
#[derive(Clone, Debug)]
pub struct Promtool {
    /// The program.
    pub program: PathBuf,
}

/// The oldest PostgreSQL that works.
const POSTGRES_SINCE: u32 = 15;
/// The products that speak Redis Streams, with the oldest version of each that works.
const REDIS_SINCE: [(&str, &str, u32); 2] = [("Redis", "redis-server", 7), ("Valkey", "valkey-server", 8)];

/// The versions of Redis that work, as messages name them.
pub(crate) const REDIS_WANTED: &str = "Redis 7 or newer (or Valkey 8 or newer)";

/// Something that is not installed, and how to get it.
#[derive(Debug)]
struct Missing {
    name: &'static str,
    package: &'static str,
    /// How to use a server that runs elsewhere, if that is possible.
    elsewhere: Option<Elsewhere>,
}

/// How to use a server that is already running.
#[derive(Debug)]
struct Elsewhere {
    /// The setting that gives its address, and what the address must be of.
    setting: &'static str,
    example: &'static str,
}

const POSTGRES: Missing = Missing {
    name: "PostgreSQL 15 or newer",
    package: "postgresql",
    elsewhere: Some(Elsewhere {
        setting: "ATRIUM_OWNER_DATABASE_URL (a superuser, or a role that may create roles and databases; if \
                  atrium_app already has a password, also ATRIUM_DATABASE_URL with it)",
        example: "ATRIUM_OWNER_DATABASE_URL=postgres://postgres:secret@127.0.0.1:5432/atrium",
    }),
};
const REDIS: Missing = Missing {
    name: REDIS_WANTED,
    package: "redis-server",
    elsewhere: Some(Elsewhere {
        setting: "ATRIUM_REDIS_URL",
        example: "ATRIUM_REDIS_URL=redis://127.0.0.1:6379/0",
    }),
};
const PGBOUNCER: Missing = Missing { name: "PgBouncer", package: "pgbouncer", elsewhere: None };
const FAKE_TIME: Missing = Missing { name: "libfaketime", package: "libfaketime", elsewhere: None };
const PROMTOOL: Missing = Missing { name: "promtool", package: "prometheus", elsewhere: None };

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
        let folders = usual_folders();
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

impl PgBouncerBinary {
    /// Looks in `PATH` and the usual folders.
    #[must_use]
    pub fn find() -> Option<Self> {
        let mut candidates = usual_folders().into_iter().map(|folder| folder.join("pgbouncer"));
        candidates.find(|server| server.is_file()).map(|server| Self { server })
    }
}

impl FakeTime {
    /// Looks in the usual folders for libraries; those of Debian are one below.
    #[must_use]
    pub fn find() -> Option<Self> {
        let mut folders: Vec<_> = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from).to_vec();
        folders.extend(subfolders(Path::new("/usr/lib")));
        let mut candidates = folders.iter().map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
        candidates.find(|library| library.is_file()).map(|library| Self { library })
    }
}

impl Promtool {
    /// Looks in `PATH` and the usual folders.
    #[must_use]
    pub fn find() -> Option<Self> {
        let mut candidates = usual_folders().into_iter().map(|folder| folder.join("promtool"));
        candidates.find(|program| program.is_file()).map(|program| Self { program })
    }
}

/// What is needed on this machine; the rest runs elsewhere, or is not used.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// PostgreSQL is wanted.
    pub postgres: bool,
    /// Redis or Valkey is wanted.
    pub redis: bool,
    /// What only tests need is wanted: PgBouncer, libfaketime and promtool.
    pub for_tests: bool,
}

/// Installs what is wanted and missing, if this machine allows it. `announce` is called before an installation, which
/// takes a while.
///
/// # Errors
/// When something is still missing, with what to install.
pub fn ensure(wanted: Wanted, announce: impl FnOnce(&str)) -> anyhow::Result<()> {
    let missing = missing(wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let names = listed(&missing, |missing| missing.name, " and ");
    if !packages::may_install() {
        bail!("{names}: not installed on this machine.\n{}", advice(&missing));
    }
    let packages: Vec<_> = missing.iter().map(|missing| missing.package).collect();
    announce(&format!(
        "{names}: not installed; installing {} from this system's packages",
        packages.join(" ")
    ));
    if let Err(error) = packages::install(&packages) {
        bail!("{names}: not installed, and the installation failed: {error:#}.\n{}", advice(&missing));
    }
    let still = self::missing(wanted);
    if !still.is_empty() {
        let names = listed(&still, |missing| missing.name, " and ");
        bail!("{names}: not available in this system's packages.\n{}", advice(&still));
    }
    Ok(())
}

fn missing(wanted: Wanted) -> Vec<Missing> {
    let postgres = (wanted.postgres && PostgresBinaries::find().is_none()).then_some(POSTGRES);
    let redis = (wanted.redis && RedisBinary::find().is_none()).then_some(REDIS);
    let pgbouncer = (wanted.for_tests && PgBouncerBinary::find().is_none()).then_some(PGBOUNCER);
    let fake_time = (wanted.for_tests && FakeTime::find().is_none()).then_some(FAKE_TIME);
    let promtool = (wanted.for_tests && Promtool::find().is_none()).then_some(PROMTOOL);
    [postgres, redis, pgbouncer, fake_time, promtool].into_iter().flatten().collect()
}

/// How to install what is missing, and nothing else.
fn advice(missing: &[Missing]) -> String {
    let packages = listed(missing, |missing| missing.package, " ");
    let install =
        format!("On Debian or Ubuntu:  sudo apt-get update && sudo apt-get install -y {packages}\n");
    let elsewhere: Vec<_> = missing.iter().filter_map(|missing| missing.elsewhere.as_ref()).collect();
    if elsewhere.is_empty() {
        return install;
    }
    format!(
        "{install}If these packages are too old, install from the project's own repository. For `make dev` you can \
         also use a running server:\nset {}, for example\n  {}",
        listed(&elsewhere, |elsewhere| elsewhere.setting, " and "),
        listed(&elsewhere, |elsewhere| elsewhere.example, " "),
    )
}

fn listed<T>(all: &[T], part: impl Fn(&T) -> &str, between: &str) -> String {
    all.iter().map(part).collect::<Vec<_>>().join(between)
}

/// What is wrong with the version in a running server's answer to `INFO`, if anything.
pub(crate) fn too_old(info: &str) -> Option<String> {
    let reported = |field: &str| {
        info.lines()
            .find_map(|line| line.trim().strip_prefix(field)?.strip_prefix(':'))
            .and_then(Version::leading)
    };
    // Valkey reports a version of Redis, too: the last one that it is compatible with.
    let reported = [reported("redis_version"), reported("valkey_version")];
    let (version, (product, _, since)) = reported
        .into_iter()
        .zip(REDIS_SINCE)
        .filter_map(|(version, product)| Some((version?, product)))
        .next_back()?;
    (version.major < since).then(|| format!("it is {product} {version}"))
}

/// The folders of `PATH`.
#[must_use]
pub fn path_folders() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// The folders of `PATH`, and those of servers.
fn usual_folders() -> Vec<PathBuf> {
    let mut folders = path_folders();
    folders.extend(["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(PathBuf::from));
    folders
}

fn subfolders(folder: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn printed(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::{PGBOUNCER, POSTGRES, REDIS, advice, too_old};

    #[test]
    fn advice_is_about_what_is_missing() {
        let redis = advice(&[REDIS]);
        assert!(redis.contains("install -y redis-server\n"), "{redis}");
        assert!(redis.contains("ATRIUM_REDIS_URL=redis://") && !redis.contains("DATABASE_URL"), "{redis}");
        let postgres = advice(&[POSTGRES]);
        assert!(postgres.contains("ATRIUM_OWNER_DATABASE_URL=postgres://") && !postgres.contains("redis"));
        let both = advice(&[POSTGRES, REDIS]);
        assert!(both.contains("install -y postgresql redis-server\n"), "{both}");
        let pooler = advice(&[PGBOUNCER]);
        assert!(pooler.contains("install -y pgbouncer\n") && !pooler.contains("ATRIUM_"), "{pooler}");
    }

    #[test]
    fn running_servers_tell_their_version() {
        assert_eq!(too_old("# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n"), None);
        assert_eq!(too_old("# Server\r\nredis_version:6.2.14\r\n").as_deref(), Some("it is Redis 6.2"));
        let valkey = |version| {
            too_old(&format!("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:{version}\r\n"))
        };
        assert_eq!(valkey("8.1.3"), None);
        assert_eq!(valkey("7.2.9").as_deref(), Some("it is Valkey 7.2"));
        assert_eq!(too_old("# Server\r\n"), None);
    }
}
