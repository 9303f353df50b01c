//! `exec`: runs a command, usually the tests, on a PostgreSQL and a Redis that exist only for it.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use atrium_harness::Environment;
use atrium_harness::interrupt::Interrupts;
use atrium_harness::screen::{Screen, readable};
use atrium_servers::binaries::{self, Wanted};
use atrium_servers::folder::Folder;
use atrium_servers::postgres::{Durability, PrivatePostgres};
use atrium_servers::process::Launch;
use atrium_servers::redis::PrivateRedis;
use atrium_servers::urls::Passwords;
use sqlx::{Connection as _, PgConnection};

/// The database that tests copy.
const TEMPLATE: &str = "atrium_template";

/// Starts the servers, runs the command with their addresses in its environment, stops them, and returns the
/// command's exit code.
///
/// # Errors
/// When the servers or the command cannot be started.
pub(crate) async fn run(command: &[OsString]) -> anyhow::Result<ExitCode> {
    let mut interrupts = Interrupts::listen()?;
    let screen = Screen::new();
    // PgBouncer and libfaketime are only installed here; the tests that need them start them.
    binaries::ensure(Wanted { postgres: true, redis: true, for_tests: true }, |text| screen.note(text))?;
    let start = Instant::now();
    let servers = tokio::select! {
        servers = Servers::start() => servers?,
        // The servers that have started stop when they are dropped.
        signal = interrupts.next() => return Ok(ExitCode::from(code_of_signal(signal.as_raw()))),
    };
    screen.note(&format!(
        "PostgreSQL {} and {}, private, ready in {}",
        servers.postgres.version(),
        servers.redis.description(),
        readable(start.elapsed()),
    ));
    let status = supervise(command, &servers.environment, &mut interrupts).await;
    servers.stop().await;
    Ok(ExitCode::from(code_of(status?)))
}

struct Servers {
    postgres: PrivatePostgres,
    redis: PrivateRedis,
    environment: Environment,
}

impl Servers {
    async fn start() -> anyhow::Result<Self> {
        let folder = Arc::new(Folder::in_memory()?);
        let (postgres, redis) = tokio::try_join!(
            PrivatePostgres::start_in(Arc::clone(&folder), Durability::Volatile),
            PrivateRedis::start_in(folder),
        )?;
        let passwords = Passwords::random();
        postgres.migrated(TEMPLATE, &passwords).await.context("cannot migrate the template database")?;
        // A template can be copied only while no client is connected to it.
        let mut connection = PgConnection::connect(&postgres.superuser_url("postgres")).await?;
        sqlx::query("ALTER DATABASE atrium_template WITH is_template true allow_connections false")
            .execute(&mut connection)
            .await?;
        connection.close().await?;
        let executable = std::env::current_exe()?;
        let environment = Environment {
            postgres_url: postgres.superuser_url("postgres"),
            template: TEMPLATE.to_owned(),
            passwords,
            redis_url: redis.url(0),
            binaries: executable.parent().context("a program is in a folder")?.to_owned(),
        };
        Ok(Self { postgres, redis, environment })
    }

    async fn stop(self) {
        tokio::join!(self.postgres.stop(), self.redis.stop());
    }
}

async fn supervise(
    command: &[OsString],
    environment: &Environment,
    interrupts: &mut Interrupts,
) -> anyhow::Result<ExitStatus> {
    let (program, arguments) = command.split_first().context("exec needs a command")?;
    let mut launch =
        Launch::new(program.to_string_lossy(), program).args(arguments).envs(environment.variables());
    if std::io::stdin().is_terminal() {
        // An interactive command keeps the terminal, and gets its Ctrl-C.
        launch = launch.in_our_group();
    }
    let process = launch.spawn()?;
    loop {
        tokio::select! {
            status = process.ended() => return Ok(status),
            signal = interrupts.next() => process.signal_group(signal),
        }
    }
}

/// The exit code a shell would report.
fn code_of(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code & 0xff).unwrap_or(1),
        (None, Some(signal)) => code_of_signal(signal),
        (None, None) => 1,
    }
}

fn code_of_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(1)
}
