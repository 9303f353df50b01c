//! One process of Atrium: its settings, its addresses, its log, and what can be done to it.
//!
//! A service listens on a given port or, at first, on any free one. It logs its addresses, and keeps them over
//! restarts, so that its clients find it again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use atrium_servers::clock::Clock;
use atrium_servers::mounts::Mounts;
use atrium_servers::names::Names;
use atrium_servers::process::{Launch, Process, Signal};
use atrium_servers::urls::DatabaseUrls;
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;

use crate::client::Client;

/// How long a process may take to listen, and then to be ready.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// What all processes of one stack share.
#[derive(Clone, Debug)]
pub struct Wiring {
    /// Where the binaries are.
    pub binaries: PathBuf,
    /// The database.
    pub database: DatabaseUrls,
    /// Redis.
    pub redis: String,
    /// The signing keys.
    pub keys: PathBuf,
    /// The address that tokens name as their issuer and browsers as their origin.
    pub public_url: String,
    /// Where logs go.
    pub logs: PathBuf,
    /// `json` or `text`.
    pub log_format: &'static str,
    /// The signal that the kernel sends the processes when this process ends.
    pub death_signal: &'static str,
    /// Further settings.
    pub settings: Vec<(String, String)>,
}

/// Which process.
#[derive(Clone, Debug)]
pub enum Kind {
    /// `atrium-api`, listening here (port 0: wherever).
    Api(SocketAddr),
    /// `atrium-workers` with these roles (`None`: all).
    Workers(Option<String>),
}

/// What differs from the machine for one process.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The time of day.
    pub clock: Option<Clock>,
    /// The name service by which it finds PostgreSQL and Redis.
    pub names: Option<Arc<Names>>,
}

/// Where a process listens.
#[derive(Clone, Copy, Debug)]
struct Addresses {
    api: Option<SocketAddr>,
    admin: SocketAddr,
}

/// A process of Atrium that can be started again and again.
#[derive(Debug)]
pub struct Service {
    name: String,
    kind: Kind,
    admin: SocketAddr,
    wiring: Wiring,
    overrides: Overrides,
    log: PathBuf,
    running: Mutex<Running>,
}

#[derive(Debug)]
struct Running {
    process: Arc<Process>,
    addresses: Addresses,
}

impl Service {
    /// Starts the process and waits until it listens; see [`Service::ready`] for the rest.
    ///
    /// # Errors
    /// When the binary is missing, or the process ends or does not listen.
    pub async fn start(
        name: impl Into<String>,
        kind: Kind,
        admin: SocketAddr,
        wiring: &Wiring,
    ) -> anyhow::Result<Self> {
        Self::start_within(Overrides::default(), name, kind, admin, wiring).await
    }

    /// The same with a clock and names of its own, which it keeps over restarts.
    ///
    /// # Errors
    /// As [`Service::start`].
    pub async fn start_within(
        overrides: Overrides,
        name: impl Into<String>,
        kind: Kind,
        admin: SocketAddr,
        wiring: &Wiring,
    ) -> anyhow::Result<Self> {
        let name = name.into();
        let log = wiring.logs.join(format!("{name}.log"));
        let launched = launch(&name, &kind, admin, wiring, &overrides, &log).await?;
        let running = Mutex::new(launched);
        Ok(Self { name, kind, admin, wiring: wiring.clone(), overrides, log, running })
    }

    /// Its name on the screen and in the name of its log.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The API's address as `http://host:port`.
    ///
    /// # Panics
    /// When this is not an API process.
    #[must_use]
    #[track_caller]
    pub fn url(&self) -> String {
        let addresses = self.locked().addresses;
        format!("http://{}", addresses.api.expect("only API processes have a public address"))
    }

    /// The admin port's address as `http://host:port`.
    #[must_use]
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.locked().addresses.admin)
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// How many bytes of memory it holds now.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    #[track_caller]
    pub fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .unwrap_or_else(|error| panic!("{} does not run: {error}", self.name));
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok());
        kib.unwrap_or_else(|| panic!("{} has no size: {status}", self.name)) * 1024
    }

    /// The file of its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// All its log lines, over all starts.
    #[must_use]
    pub fn logs(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        last_lines(&self.logs(), lines)
    }

    /// Its clock.
    ///
    /// # Panics
    /// When it uses the machine's.
    #[must_use]
    #[track_caller]
    pub fn clock(&self) -> &Clock {
        self.overrides.clock.as_ref().expect("this process uses the machine's clock")
    }

    /// How it ended, or `None` while it runs.
    #[must_use]
    pub fn status(&self) -> Option<ExitStatus> {
        self.process().status()
    }

    /// Resolves when the process that runs now has ended.
    pub fn end(&self) -> impl Future<Output = ExitStatus> + Send + use<> {
        self.process().end()
    }

    /// Sends any signal.
    pub fn signal(&self, signal: Signal) {
        self.process().signal(signal);
    }

    /// Kills it and waits until it has ended.
    pub async fn sigkill(&self) {
        let process = self.process();
        process.kill().await;
    }

    /// Pauses it.
    pub fn suspend(&self) {
        self.signal(Signal::STOP);
    }

    /// Continues it.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks it to drain and end; does not wait.
    pub fn sigterm(&self) {
        self.signal(Signal::TERM);
    }

    /// Asks it to drain and end, and kills it after `grace`. Returns whether it ended by itself.
    pub async fn stop(&self, grace: Duration) -> bool {
        let process = self.process();
        process.stop(Signal::TERM, grace).await
    }

    /// Starts it again at the same addresses, after it has ended.
    ///
    /// # Errors
    /// When the process ends or does not listen.
    pub async fn respawn(&self) -> anyhow::Result<()> {
        let Addresses { api, admin } = self.locked().addresses;
        let kind = match api {
            Some(address) => Kind::Api(address),
            None => self.kind.clone(),
        };
        let admin = if admin.port() == 0 { self.admin } else { admin };
        let launched = launch(&self.name, &kind, admin, &self.wiring, &self.overrides, &self.log).await?;
        *self.locked() = launched;
        Ok(())
    }

    /// Kills it, starts it again and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.sigkill().await;
        self.respawn().await?;
        self.ready().await
    }

    /// Waits until `/readyz` says so.
    ///
    /// # Errors
    /// When it does not in time, or the process ends; with its last log lines.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let client = Client::new(self.admin_url());
        let deadline = Instant::now() + TIMEOUT;
        let mut last = "no answer".to_owned();
        while Instant::now() < deadline {
            if let Some(status) = self.status() {
                bail!("{} ended while starting ({status}):\n{}", self.name, self.log_tail(20));
            }
            match client.get("/readyz").timeout(Duration::from_secs(2)).send().await {
                Ok(reply) if reply.code() == 200 => return Ok(()),
                Ok(reply) => last = reply.describe(),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("{} is not ready after {TIMEOUT:?} ({last}):\n{}", self.name, self.log_tail(20));
    }

    fn process(&self) -> Arc<Process> {
        Arc::clone(&self.locked().process)
    }

    fn locked(&self) -> MutexGuard<'_, Running> {
        self.running.lock()
    }
}

async fn launch(
    name: &str,
    kind: &Kind,
    admin: SocketAddr,
    wiring: &Wiring,
    overrides: &Overrides,
    log: &Path,
) -> anyhow::Result<Running> {
    let before = std::fs::metadata(log).map_or(0, |metadata| metadata.len());
    let binary = match kind {
        Kind::Api(_) => "atrium-api",
        Kind::Workers(_) => "atrium-workers",
    };
    let program = wiring.binaries.join(binary);
    if !program.is_file() {
        bail!("{} does not exist; build it with `cargo build -p {binary}`", program.display());
    }
    let Overrides { clock, names } = overrides;
    let url = |url: &str| names.as_ref().map_or_else(|| url.to_owned(), |names| names.with_name(url));
    let mut launch = Launch::new(name, program)
        .within(names.as_deref().map(Names::mounts).map(Mounts::enter_command))
        .envs(clock.iter().flat_map(Clock::environment))
        .env("ATRIUM_DATABASE_URL", url(&wiring.database.app))
        .env("ATRIUM_WATCHER_DATABASE_URL", url(&wiring.database.watcher))
        .env("ATRIUM_REDIS_URL", url(&wiring.redis))
        .env("ATRIUM_ADMIN_LISTEN", admin.to_string())
        .env("ATRIUM_LOG_FORMAT", wiring.log_format)
        .death_signal(wiring.death_signal)
        .log(log);
    launch = match kind {
        Kind::Api(listen) => launch
            .env("ATRIUM_LISTEN", listen.to_string())
            .env("ATRIUM_PUBLIC_URL", &wiring.public_url)
            .env("ATRIUM_SIGNING_KEYS_DIR", wiring.keys.display().to_string()),
        Kind::Workers(roles) => {
            let launch = launch.env("ATRIUM_RELAY_DATABASE_URL", url(&wiring.database.relay));
            roles.iter().fold(launch, |launch, roles| launch.arg("--roles").arg(roles))
        }
    };
    let process = launch
        .envs(wiring.settings.iter().cloned())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;

    let deadline = Instant::now() + TIMEOUT;
    loop {
        let written = std::fs::read(log).unwrap_or_default();
        let written = written.get(usize::try_from(before)?..).unwrap_or_default();
        let written = String::from_utf8_lossy(written);
        // The last line may not be complete yet.
        let complete = written.rfind('\n').map_or("", |end| &written[..end]);
        if let Some(addresses) = complete.lines().find_map(listening) {
            return Ok(Running { process: Arc::new(process), addresses });
        }
        if let Some(status) = process.status() {
            bail!("{name} ended while starting ({status}):\n{}", last_lines(&written, 20));
        }
        if Instant::now() >= deadline {
            bail!("{name} does not listen after {TIMEOUT:?}:\n{}", last_lines(&written, 20));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The addresses in the log record in which a process reports where it listens.
fn listening(line: &str) -> Option<Addresses> {
    let (api, admin) = match serde_json::from_str::<Value>(line) {
        Ok(line) => {
            let fields = if line["message"].is_string() { &line } else { &line["fields"] };
            if fields["message"] != "listening" {
                return None;
            }
            let field = |name: &str| fields[name].as_str().map(str::to_owned);
            (field("listen"), field("admin"))
        }
        Err(_) => {
            let mut words = line.split_whitespace();
            words.find(|word| *word == "listening")?;
            let field = |name: &str| {
                let mut words = words.clone();
                let value = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
                Some(value.trim_matches('"').to_owned())
            };
            (field("listen"), field("admin"))
        }
    };
    Some(Addresses { api: api.and_then(|text| text.parse().ok()), admin: admin?.parse().ok()? })
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::listening;

    fn seen(line: &str) -> Option<(Option<String>, String)> {
        let found = listening(line)?;
        Some((found.api.map(|address| address.to_string()), found.admin.to_string()))
    }

    #[test]
    fn the_line_is_found_in_both_formats() {
        let both = Some((Some("127.0.0.1:41".to_owned()), "127.0.0.1:42".to_owned()));
        let json = r#"{"level":"INFO","message":"listening","listen":"127.0.0.1:41","admin":"127.0.0.1:42"}"#;
        assert_eq!(seen(json), both);
        let nested = r#"{"fields":{"message":"listening","listen":"127.0.0.1:41","admin":"127.0.0.1:42"}}"#;
        assert_eq!(seen(nested), both);
        assert_eq!(
            seen("2026-11-23T15:00:00Z  INFO atrium_api: listening listen=127.0.0.1:41 admin=127.0.0.1:42"),
            both
        );
        assert_eq!(
            seen("2026-11-23T15:00:00Z  INFO atrium_workers: listening admin=127.0.0.1:42"),
            Some((None, "127.0.0.1:42".to_owned()))
        );
    }

    #[test]
    fn other_lines_are_ignored() {
        assert_eq!(seen(r#"{"message":"ready","admin":"127.0.0.1:42"}"#), None);
        assert_eq!(seen("INFO atrium_api: ready admin=127.0.0.1:42"), None);
        assert_eq!(seen(""), None);
    }
}
