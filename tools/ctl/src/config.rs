//! Reading and changing the platform's configuration. The same code, validation and history as for organizations;
//! every process applies a change within milliseconds.

use anyhow::{Context as _, bail};
use atrium_shared::{
    configuration::{
        Values, catalog,
        write::{self, Change, ChangeError},
    },
    db::{Database, Principal},
    ids::OrgId,
};
use serde_json::Value;

const PRINCIPAL: Principal = Principal::System(Principal::OPERATOR);

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Every key, its value, and where the value comes from.
    List,
    /// One key's value.
    Get {
        /// The key, such as log.level.
        key: String,
    },
    /// Sets a key for everybody.
    Set {
        /// The key, such as log.level.
        key: String,
        /// The value, as JSON: 5, true, '"debug"', '["ready"]'.
        value: String,
        /// Why; kept in the history.
        #[arg(long)]
        reason: String,
    },
    /// Takes a key's value away, so that the built-in one holds again.
    Unset {
        /// The key, such as log.level.
        key: String,
        /// Why; kept in the history.
        #[arg(long)]
        reason: String,
    },
}

#[expect(clippy::print_stdout, reason = "a command answers on standard output")]
pub(crate) async fn run(command: Command, database: &Database) -> anyhow::Result<()> {
    match command {
        Command::List => {
            let values = read(database).await?;
            for key in catalog::all() {
                let (value, source) = value_of(key, &values);
                println!("{:<34} {value}  ({source})", key.name);
            }
        }
        Command::Get { key } => {
            let key = catalog::find(&key).with_context(|| unknown(&key))?;
            println!("{}", value_of(key, &read(database).await?).0);
        }
        Command::Set { key, value, reason } => {
            let value = serde_json::from_str(&value).with_context(|| {
                format!("{value} is not JSON; a text needs quotes of its own: '\"{value}\"'")
            })?;
            println!("revision {}", change(database, key, Some(value), reason).await?);
        }
        Command::Unset { key, reason } => println!("revision {}", change(database, key, None, reason).await?),
    }
    Ok(())
}

async fn read(database: &Database) -> anyhow::Result<Values> {
    Ok(Values::read(&mut database.org_tx(&PRINCIPAL, OrgId::PLATFORM).await?).await?)
}

fn value_of<'v>(key: &'v catalog::Key, values: &'v Values) -> (&'v Value, &'static str) {
    match values.organization.get(key.name) {
        Some(value) => (value, "default, set by an operator"),
        None => (&key.builtin, "builtin"),
    }
}

async fn change(
    database: &Database,
    key: String,
    value: Option<Value>,
    reason: String,
) -> anyhow::Result<i64> {
    let mut tx = database.org_tx(&PRINCIPAL, OrgId::PLATFORM).await?;
    let change =
        Change { project: None, key: key.clone(), value, author: None, reason, expected_revision: None };
    let revision = match write::apply(&mut tx, change).await {
        Ok(revision) => revision,
        Err(ChangeError::UnknownKey) => bail!(unknown(&key)),
        Err(ChangeError::Invalid(violations)) => {
            let wrong: Vec<_> = violations.iter().map(|wrong| wrong.detail.as_str()).collect();
            bail!("{key} does not take this value: {}", wrong.join("; "))
        }
        Err(error) => return Err(error.into()),
    };
    tx.commit().await?;
    // A command ends before the task that folds notifications would send one.
    database.wake_relay().await?;
    Ok(revision)
}

fn unknown(key: &str) -> String {
    format!("there is no key {key}; `atrium-ctl config list` names them all")
}
