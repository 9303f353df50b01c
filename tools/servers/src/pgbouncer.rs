//! A private PgBouncer in transaction mode: on a free port of the loopback address, in front of one role's database.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sqlx::{Connection as _, PgConnection};

use crate::account::Account;
use crate::binaries::PgBouncerBinary;
use crate::folder::Folder;
use crate::ports;
use crate::process::{Launch, Process};
use crate::urls::{credentials, on_port, parse};

/// How long it may take to come up.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A private PgBouncer. Dropping it kills it, which loses nothing, and removes its folder.
#[derive(Debug)]
pub struct PrivatePgBouncer {
    url: String,
    log: PathBuf,
    process: Process,
    // Last: fields are dropped in order, and the server works in this folder.
    _folder: Folder,
}

impl PrivatePgBouncer {
    /// Starts one that connects to `url` through at most this many server connections, for any number of clients.
    ///
    /// # Errors
    /// When PgBouncer is missing or does not come up.
    pub async fn start(url: &str, server_connections: u32) -> anyhow::Result<Self> {
        let binary = PgBouncerBinary::find().context("PgBouncer is not installed on this machine")?;
        // It does not start as root, like PostgreSQL.
        let account = Account::for_servers()?;
        let mut attempt = 0;
        loop {
            let folder = Folder::create()?;
            let home = folder.private("pgbouncer", account.as_ref())?;
            let port = ports::free()?;
            let configuration = configure(&home, account.as_ref(), url, server_connections, port)?;
            let log = home.join("pgbouncer.log");
            let process = Launch::new("PgBouncer", &binary.server)
                .arg(configuration)
                .account(account.clone())
                .death_signal("KILL")
                .log(&log)
                .spawn()
                .context("cannot start PgBouncer")?;
            let started = Self { url: on_port(url, port)?, log, process, _folder: folder };
            match started.ready().await {
                Ok(()) => return Ok(started),
                // Another process took the port before this one bound it.
                Err(_) if attempt < 5 && started.log().contains("Address already in use") => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// The address through the pooler.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        // PgBouncer rejects a parameter that sqlx sends by default.
        let options = parse(&self.url)?.extra_float_digits(None);
        loop {
            if let Some(status) = self.process.status() {
                bail!("PgBouncer ended while starting ({status}):\n{}", self.log());
            }
            match PgConnection::connect_with(&options).await {
                Ok(connection) => return Ok(connection.close().await?),
                Err(error) if Instant::now() >= deadline => {
                    bail!("PgBouncer does not answer: {error}\n{}", self.log());
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Writes the settings and the role's password where only the server's account can read them.
fn configure(
    home: &Path,
    account: Option<&Account>,
    url: &str,
    server_connections: u32,
    port: u16,
) -> anyhow::Result<PathBuf> {
    let server = parse(url)?;
    let (role, password) = credentials(url)?;
    let roles = home.join("roles.txt");
    std::fs::write(&roles, format!("\"{role}\" \"{password}\"\n"))?;
    let configuration = home.join("pgbouncer.ini");
    std::fs::write(
        &configuration,
        format!(
            "[databases]\n\
             {database} = host={host} port={server_port}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             unix_socket_dir =\n\
             auth_type = scram-sha-256\n\
             auth_file = {roles}\n\
             pool_mode = transaction\n\
             default_pool_size = {server_connections}\n\
             max_client_conn = 500\n",
            database = server.get_database().context("the address has no database")?,
            host = server.get_host(),
            server_port = server.get_port(),
            roles = roles.display(),
        ),
    )?;
    if let Some(account) = account {
        account.give(&roles)?;
        account.give(&configuration)?;
    }
    Ok(configuration)
}
