//! A private PostgreSQL: its own data directory, on a free port of the loopback address, with random passwords.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use parking_lot::{Mutex, MutexGuard};
use sqlx::{Connection as _, PgConnection};

use crate::account::Account;
use crate::binaries::PostgresBinaries;
use crate::folder::Folder;
use crate::mounts::Mounts;
use crate::ports;
use crate::process::{Launch, Process, Signal};
use crate::scram::verifier;
use crate::small_disk::SmallDisk;
use crate::urls::{DatabaseUrls, Passwords, random_password};

/// How long a server may take to come up; recovery after a kill is included.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a fast shutdown may take before it is a kill.
const GRACE: Duration = Duration::from_secs(10);

/// Whether committed data must survive a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Every commit is on disk: `kill -9` of anything loses nothing.
    Durable,
    /// Commits do not wait for the disk; several times faster, for tests that do not kill PostgreSQL.
    Volatile,
}

/// A private PostgreSQL. Dropping it stops it and removes its folder.
#[derive(Debug)]
pub struct PrivatePostgres {
    binaries: PostgresBinaries,
    account: Option<Account>,
    data: PathBuf,
    log: PathBuf,
    port: u16,
    durability: Durability,
    superuser_password: String,
    process: Mutex<Arc<Process>>,
    // After the process, which works on it.
    disk: Option<Arc<SmallDisk>>,
    // Last: fields are dropped in order, and the server works in this folder.
    _folder: Arc<Folder>,
}

impl PrivatePostgres {
    /// Starts one in a folder of its own.
    ///
    /// # Errors
    /// When PostgreSQL is missing or does not come up.
    pub async fn start(durability: Durability) -> anyhow::Result<Self> {
        Self::start_in(Arc::new(Folder::create()?), durability).await
    }

    /// Starts one in a folder that is shared with the rest of a stack.
    ///
    /// # Errors
    /// When PostgreSQL is missing or does not come up.
    pub async fn start_in(folder: Arc<Folder>, durability: Durability) -> anyhow::Result<Self> {
        Self::start_on(folder, durability, false).await
    }

    /// Starts one whose data lies on a small disk, which can be filled.
    ///
    /// # Errors
    /// When PostgreSQL is missing or does not come up, or this machine does not allow mounts.
    pub async fn start_on_small_disk(durability: Durability) -> anyhow::Result<Self> {
        Self::start_on(Arc::new(Folder::create()?), durability, true).await
    }

    async fn start_on(folder: Arc<Folder>, durability: Durability, small_disk: bool) -> anyhow::Result<Self> {
        let binaries =
            PostgresBinaries::find().context("PostgreSQL 15 or newer is not installed on this machine")?;
        let account = Account::for_servers()?;
        let home = folder.private("postgres", account.as_ref())?;
        let (data, log) = (home.join("data"), home.join("postgres.log"));
        let disk = if small_disk {
            std::fs::create_dir(&data)?;
            Some(Arc::new(SmallDisk::mount(folder.path(), &data, account.as_ref()).await?))
        } else {
            None
        };
        let superuser_password = random_password();
        initialize(&binaries, account.as_ref(), &home, &data, disk.as_deref(), &superuser_password).await?;

        let mut attempt = 0;
        loop {
            let port = ports::free()?;
            let process =
                launch(&binaries, account.as_ref(), &data, disk.as_deref(), &log, port, durability)?;
            let started = Self {
                binaries: binaries.clone(),
                account: account.clone(),
                data: data.clone(),
                log: log.clone(),
                port,
                durability,
                superuser_password: superuser_password.clone(),
                process: Mutex::new(Arc::new(process)),
                disk: disk.clone(),
                _folder: Arc::clone(&folder),
            };
            match started.ready().await {
                Ok(()) => return Ok(started),
                // Another process took the port before this one bound it.
                Err(_) if attempt < 5 && started.log_tail().contains("Address already in use") => {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A database as the superuser.
    #[must_use]
    pub fn superuser_url(&self, database: &str) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/{database}", self.superuser_password, self.port)
    }

    /// Creates a database, applies all migrations, and returns its address for each role. The passwords have to be
    /// random.
    ///
    /// # Errors
    /// When a statement fails.
    pub async fn migrated(&self, database: &str, passwords: &Passwords) -> anyhow::Result<DatabaseUrls> {
        let mut connection = PgConnection::connect(&self.superuser_url("postgres")).await?;
        create_database(&mut connection, database, None).await?;
        connection.close().await?;
        let urls = DatabaseUrls::new(&self.superuser_url(database), passwords)?;
        atrium_migrations::migrate(&urls.owner, &passwords.verifiers()).await?;
        Ok(urls)
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The disk that its data lies on.
    ///
    /// # Panics
    /// When it was not started on a small one.
    #[must_use]
    #[track_caller]
    pub fn disk(&self) -> &SmallDisk {
        self.disk.as_deref().expect("this PostgreSQL was not started on a small disk")
    }

    /// The version of the binaries.
    #[must_use]
    pub fn version(&self) -> crate::version::Version {
        self.binaries.version
    }

    /// The postmaster's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// Resolves when the server that runs now has ended.
    pub fn end(&self) -> impl Future<Output = ExitStatus> + Send + use<> {
        self.process().end()
    }

    /// Kills the postmaster; its backends notice that and exit.
    pub async fn sigkill(&self) {
        let process = self.process();
        process.kill().await;
    }

    /// Stops it with the fast shutdown: connections are closed, and everything is written.
    pub async fn stop(&self) {
        let process = self.process();
        process.stop(Signal::INT, GRACE).await;
    }

    /// Starts it again on the same data and port, after it was stopped or killed.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn respawn(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            *self.locked() = Arc::new(self.launch()?);
            match self.ready().await {
                Ok(()) => return Ok(()),
                // After a kill the old backends hold the shared memory until they notice that the postmaster has ended.
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Stops it and starts it again.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.stop().await;
        self.respawn().await
    }

    fn launch(&self) -> anyhow::Result<Process> {
        let (account, disk) = (self.account.as_ref(), self.disk.as_deref());
        launch(&self.binaries, account, &self.data, disk, &self.log, self.port, self.durability)
    }

    fn process(&self) -> Arc<Process> {
        Arc::clone(&self.locked())
    }

    fn locked(&self) -> MutexGuard<'_, Arc<Process>> {
        self.process.lock()
    }

    /// Waits until it answers, and makes sure that no other server answers.
    async fn ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        let process = self.process();
        loop {
            if let Some(status) = process.status() {
                bail!("PostgreSQL ended while starting ({status}):\n{}", self.log_tail());
            }
            match PgConnection::connect(&self.superuser_url("postgres")).await {
                Ok(mut connection) => {
                    let data: String =
                        sqlx::query_scalar("SHOW data_directory").fetch_one(&mut connection).await?;
                    connection.close().await?;
                    ensure!(
                        Path::new(&data) == self.data,
                        "the PostgreSQL on port {} has its data in {data}, ours has it in {}",
                        self.port,
                        self.data.display(),
                    );
                    return Ok(());
                }
                Err(error) if Instant::now() >= deadline => {
                    bail!("PostgreSQL does not answer: {error}\n{}", self.log_tail());
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// The end of its log.
    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        let process = self.process();
        process.signal(Signal::INT);
        let patience = Instant::now() + Duration::from_secs(3);
        while process.status().is_none() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

async fn initialize(
    binaries: &PostgresBinaries,
    account: Option<&Account>,
    home: &Path,
    data: &Path,
    disk: Option<&SmallDisk>,
    superuser_password: &str,
) -> anyhow::Result<()> {
    let password_file = home.join("password");
    let log = home.join("initdb.log");
    std::fs::write(&password_file, verifier(superuser_password))?;
    if let Some(account) = account {
        account.give(&password_file)?;
    }
    let initdb = Launch::new("initdb", &binaries.initdb)
        .arg("--pgdata")
        .arg(data)
        .arg("--pwfile")
        .arg(&password_file)
        .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"])
        .arg("--no-instructions")
        .env("LC_ALL", "C")
        .account(account.cloned())
        .within(disk.map(SmallDisk::mounts).map(Mounts::enter_command))
        .death_signal("KILL")
        .log(&log)
        .spawn()?;
    let status = initdb.ended().await;
    std::fs::remove_file(&password_file)?;
    if !status.success() {
        bail!("initdb ended with {status}:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
    }
    Ok(())
}

fn launch(
    binaries: &PostgresBinaries,
    account: Option<&Account>,
    data: &Path,
    disk: Option<&SmallDisk>,
    log: &Path,
    port: u16,
    durability: Durability,
) -> anyhow::Result<Process> {
    let mut settings = vec![
        format!("port={port}"),
        "listen_addresses=127.0.0.1".to_owned(),
        // No socket file: its folder would have to exist, and it would be one more way to connect.
        "unix_socket_directories=".to_owned(),
        "max_connections=500".to_owned(),
        "shared_buffers=64MB".to_owned(),
        "log_checkpoints=off".to_owned(),
        // The superuser's queries, too: compiling one takes longer than any of them.
        "jit=off".to_owned(),
    ];
    if durability == Durability::Volatile {
        settings.extend(
            // The log is only kept small because it may lie in memory.
            ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_wal_size=256MB"]
                .map(str::to_owned),
        );
    }
    let mut launch = Launch::new("PostgreSQL", &binaries.postgres)
        .arg("-D")
        .arg(data)
        .env("LC_ALL", "C")
        .account(account.cloned())
        .within(disk.map(SmallDisk::mounts).map(Mounts::enter_command))
        // The fast shutdown: connections are closed, and everything is written.
        .death_signal("INT")
        .log(log);
    for setting in settings {
        launch = launch.arg("-c").arg(setting);
    }
    launch.spawn().context("cannot start PostgreSQL")
}

/// Creates a database, optionally as a copy of a template.
///
/// # Errors
/// If PostgreSQL rejects it: the name is taken, or a client is connected to the template.
pub async fn create_database(
    connection: &mut PgConnection,
    name: &str,
    template: Option<&str>,
) -> anyhow::Result<()> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let mut statement = format!("CREATE DATABASE {}", quoted(name));
    if let Some(template) = template {
        statement.push_str(&format!(" TEMPLATE {}", quoted(template)));
    }
    sqlx::query(sqlx::AssertSqlSafe(statement))
        .execute(connection)
        .await
        .context("cannot create the database")?;
    Ok(())
}
