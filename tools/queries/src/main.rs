//! `atrium-queries`: what `sqlx::query!` knows of the database without one.
//!
//! The compiler checks each `query!` against a description of its parameters and columns, a file in `.sqlx/`. This
//! program reads the descriptions from a private, migrated PostgreSQL: it runs `cargo check` on the crates with
//! queries, with the address of the database, and sqlx writes a file for each query. It depends on none of these
//! crates, so it can be built while their descriptions are out of date.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::SystemTime,
};

use anyhow::Context as _;
use atrium_servers::{
    binaries::{self, Wanted},
    postgres::{Durability, PrivatePostgres},
    urls::Passwords,
};
use clap::{Parser, ValueEnum};

/// The folders of the crates that may hold queries.
const CRATES: &[&str] = &["shared", "workers", "api", "tools/ctl"];

/// Where the descriptions are committed.
const COMMITTED: &str = ".sqlx";

/// Describes the queries of the code, from a private PostgreSQL with this checkout's migrations.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Whether to write the descriptions, or to find out whether the committed ones are up to date.
    task: Task,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Task {
    /// Replace the committed descriptions.
    Prepare,
    /// Fail when the committed descriptions are not those of this code and these migrations.
    Check,
}

#[tokio::main]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command answers on the terminal")]
async fn main() -> ExitCode {
    match run(Arguments::parse().task).await {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("atrium-queries: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(task: Task) -> anyhow::Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let committed = root.join(COMMITTED);
    let described = describe(&root).await?;
    let before = read(&committed)?;
    let count = described.len();
    if described == before {
        return Ok(format!("{count} queries, each as PostgreSQL describes it"));
    }
    if task == Task::Prepare {
        write(&committed, &described)?;
        return Ok(format!("{count} queries described anew in {COMMITTED}; commit that folder"));
    }
    let missing = described.keys().filter(|name| !before.contains_key(*name)).count();
    let unused = before.keys().filter(|name| !described.contains_key(*name)).count();
    let changed =
        count - missing - described.iter().filter(|(name, text)| before.get(*name) == Some(text)).count();
    anyhow::bail!(
        "{COMMITTED} is out of date: {missing} queries are missing, {changed} are described differently, {unused} are \
         no longer used. Run `make queries` and commit the folder."
    )
}

/// The descriptions of all queries, by file name.
async fn describe(root: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    binaries::ensure(Wanted { postgres: true, redis: false, for_tests: false }, |_| {})?;
    let postgres = PrivatePostgres::start(Durability::Volatile).await?;
    postgres.migrated("atrium", &Passwords::random()).await.context("cannot migrate the database")?;
    let folder = tempfile::tempdir()?;
    for krate in CRATES {
        touch(&root.join(krate).join("src"))?;
    }
    let status = Command::new(env!("CARGO"))
        .args(["check", "--workspace", "--lib", "--bins", "--quiet"])
        .current_dir(root)
        .env("DATABASE_URL", postgres.superuser_url("atrium"))
        .env("SQLX_OFFLINE_DIR", folder.path())
        .status()
        .context("cannot start cargo")?;
    postgres.stop().await;
    anyhow::ensure!(status.success(), "the code does not compile against the migrated database");
    read(folder.path())
}

/// Makes cargo check a crate again: a description is written only where a macro is expanded.
#[expect(clippy::disallowed_methods, reason = "cargo compares the times of files, which are the machine's")]
fn touch(source: &Path) -> anyhow::Result<()> {
    for name in ["lib.rs", "main.rs"] {
        let file = source.join(name);
        if file.exists() {
            File::options().append(true).open(&file)?.set_modified(SystemTime::now())?;
        }
    }
    Ok(())
}

fn read(folder: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    if !folder.exists() {
        return Ok(files);
    }
    for entry in folder.read_dir()? {
        let path: PathBuf = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.insert(name, fs::read_to_string(&path)?);
    }
    Ok(files)
}

fn write(folder: &Path, described: &BTreeMap<String, String>) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    for (name, text) in described {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}
