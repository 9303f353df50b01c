//! A private Redis (or Valkey): on a free port of the loopback address, with a random password and an append-only file.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use parking_lot::{Mutex, MutexGuard};
use tempfile::TempDir;

use crate::binaries::{REDIS_WANTED, RedisBinary};
use crate::folder::Folder;
use crate::mounts::Mounts;
use crate::ports;
use crate::process::{Launch, Process, Signal};
use crate::small_disk::SmallDisk;
use crate::urls::random_password;

/// How long a server may take to come up; reading its append-only file is included.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to write what it holds before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// Logical databases of one server: tests take one each.
pub const DATABASES: i64 = 1024;

/// Where a server keeps its append-only files, in the folder of its data.
const APPEND_ONLY_FOLDER: &str = "appendonlydir";

/// A private Redis. Dropping it stops it and removes its folder.
#[derive(Debug)]
pub struct PrivateRedis {
    binary: RedisBinary,
    home: PathBuf,
    data: PathBuf,
    port: u16,
    password: String,
    process: Mutex<Arc<Process>>,
    // After the process, which works on it.
    disk: Option<Arc<SmallDisk>>,
    // Last: fields are dropped in order, and the server works in this folder.
    _folder: Arc<Folder>,
}

impl PrivateRedis {
    /// Starts one in a folder of its own.
    ///
    /// # Errors
    /// When Redis is missing or does not come up.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_in(Arc::new(Folder::create()?)).await
    }

    /// Starts one in a folder that is shared with the rest of a stack.
    ///
    /// # Errors
    /// When Redis is missing or does not come up.
    pub async fn start_in(folder: Arc<Folder>) -> anyhow::Result<Self> {
        Self::start_on(folder, false).await
    }

    /// Starts one whose append-only file lies on a small disk, which can be filled.
    ///
    /// # Errors
    /// When Redis is missing or does not come up, or this machine does not allow mounts.
    pub async fn start_on_small_disk() -> anyhow::Result<Self> {
        Self::start_on(Arc::new(Folder::create()?), true).await
    }

    async fn start_on(folder: Arc<Folder>, small_disk: bool) -> anyhow::Result<Self> {
        let binary = RedisBinary::find()
            .with_context(|| format!("{REDIS_WANTED} is not installed on this machine"))?;
        let home = folder.private("redis", None)?;
        let data = home.join("data");
        std::fs::create_dir(&data)?;
        let disk = if small_disk {
            Some(Arc::new(SmallDisk::mount(folder.path(), &data, None).await?))
        } else {
            None
        };
        let password = random_password();
        let mut attempt = 0;
        loop {
            let port = ports::free()?;
            configure(&home, &data, port, &password)?;
            let started = Self {
                binary: binary.clone(),
                home: home.clone(),
                data: data.clone(),
                port,
                password: password.clone(),
                process: Mutex::new(Arc::new(launch(&binary, &home, disk.as_deref())?)),
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

    /// The address of one of its logical databases.
    #[must_use]
    pub fn url(&self, database: i64) -> String {
        self.url_through(self.port, database)
    }

    /// The same database through a proxy on another port of the loopback address.
    #[must_use]
    pub fn url_through(&self, port: u16, database: i64) -> String {
        format!("redis://default:{}@127.0.0.1:{port}/{database}", self.password)
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The disk that its append-only file lies on.
    ///
    /// # Panics
    /// When it was not started on a small one.
    #[must_use]
    #[track_caller]
    pub fn disk(&self) -> &SmallDisk {
        self.disk.as_deref().expect("this Redis was not started on a small disk")
    }

    /// What it is and which version.
    #[must_use]
    pub fn description(&self) -> String {
        format!("{} {}", self.binary.product, self.binary.version)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// Resolves when the server that runs now has ended.
    pub fn end(&self) -> impl Future<Output = ExitStatus> + Send + use<> {
        self.process().end()
    }

    /// A connection, to inspect its data.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn connection(&self, database: i64) -> anyhow::Result<redis::aio::MultiplexedConnection> {
        Ok(redis::Client::open(self.url(database))?.get_multiplexed_async_connection().await?)
    }

    /// Deletes everything, as an operator or an accident may at any time.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn flush_all(&self) -> anyhow::Result<()> {
        let mut connection = self.connection(0).await?;
        redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await?;
        Ok(())
    }

    /// Kills it.
    pub async fn sigkill(&self) {
        let process = self.process();
        process.kill().await;
    }

    /// Stops it; what it holds is written.
    pub async fn stop(&self) {
        let process = self.process();
        process.stop(Signal::TERM, GRACE).await;
    }

    /// Pauses the process: connections stay open and nothing answers.
    pub fn suspend(&self) {
        self.process().signal(Signal::STOP);
    }

    /// Continues a paused process.
    pub fn resume(&self) {
        self.process().signal(Signal::CONT);
    }

    /// Starts it again with the same data and port, after it was stopped or killed.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn respawn(&self) -> anyhow::Result<()> {
        *self.locked() = Arc::new(launch(&self.binary, &self.home, self.disk.as_deref())?);
        self.ready().await
    }

    /// Copies what it has written until now. An acknowledged write is in its file, though maybe not on the disk yet.
    ///
    /// # Errors
    /// When the folder cannot be copied.
    pub fn copy_data(&self) -> std::io::Result<Dump> {
        let folder = tempfile::tempdir_in(&self.home)?;
        copy_files(&self.data.join(APPEND_ONLY_FOLDER), folder.path())?;
        Ok(Dump(folder))
    }

    /// Kills it and starts it with older data: later writes are lost.
    ///
    /// # Errors
    /// When the files cannot be exchanged, or it does not come up.
    pub async fn rewind(&self, dump: &Dump) -> anyhow::Result<()> {
        self.sigkill().await;
        let folder = self.data.join(APPEND_ONLY_FOLDER);
        std::fs::remove_dir_all(&folder)?;
        std::fs::create_dir(&folder)?;
        copy_files(dump.0.path(), &folder)?;
        self.respawn().await
    }

    /// Stops it and starts it again.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.stop().await;
        self.respawn().await
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
                bail!("{} ended while starting ({status}):\n{}", self.binary.product, self.log_tail());
            }
            match self.data_folder().await {
                Ok(folder) => {
                    ensure!(
                        folder == self.data,
                        "the server on port {} has its data in {}, ours has it in {}",
                        self.port,
                        folder.display(),
                        self.data.display(),
                    );
                    return Ok(());
                }
                Err(error) if Instant::now() >= deadline => {
                    bail!("{} does not answer: {error}\n{}", self.binary.product, self.log_tail());
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    async fn data_folder(&self) -> anyhow::Result<PathBuf> {
        let mut connection = self.connection(0).await?;
        redis::cmd("PING").query_async::<()>(&mut connection).await?;
        let (_, folder): (String, String) =
            redis::cmd("CONFIG").arg("GET").arg("dir").query_async(&mut connection).await?;
        Ok(PathBuf::from(folder))
    }

    /// The end of its log.
    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.home.join("redis.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for PrivateRedis {
    fn drop(&mut self) {
        let process = self.process();
        // It may be paused, and a paused process ends only after SIGCONT.
        process.signal(Signal::CONT);
        process.signal(Signal::TERM);
        let patience = Instant::now() + Duration::from_secs(2);
        while process.status().is_none() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A copy of a server's data. Deleted when this is dropped.
#[derive(Debug)]
pub struct Dump(TempDir);

fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// The settings are in a file that only its owner can read: a password on the command line would be visible to all
/// users.
fn configure(home: &Path, data: &Path, port: u16, password: &str) -> anyhow::Result<()> {
    let configuration = format!(
        "bind 127.0.0.1\n\
         port {port}\n\
         requirepass {password}\n\
         dir {}\n\
         databases {DATABASES}\n\
         appendonly yes\n\
         appendfsync everysec\n\
         save \"\"\n\
         maxmemory-policy noeviction\n\
         daemonize no\n",
        data.display(),
    );
    std::fs::write(home.join("redis.conf"), configuration).context("cannot write redis.conf")
}

fn launch(binary: &RedisBinary, home: &Path, disk: Option<&SmallDisk>) -> anyhow::Result<Process> {
    Launch::new(binary.product, &binary.server)
        .arg(home.join("redis.conf"))
        .within(disk.map(SmallDisk::mounts).map(Mounts::enter_command))
        .log(home.join("redis.log"))
        .spawn()
        .context("cannot start Redis")
}
