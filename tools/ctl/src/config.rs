//! Reads and changes configuration: the platform's defaults, or one organization's values. Validation and history are
//! those of the API; every process applies a change within milliseconds.

use anyhow::{Context as _, bail};
use atrium_shared::{
    configuration::{
        Values, catalog,
        write::{self, Change, ChangeError},
    },
    db::{Database, DbError, Principal},
    ids::OrgId,
};
use serde_json::Value;

const PRINCIPAL: Principal = Principal::System(Principal::OPERATOR);

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Lists every key with its value and the value's source.
    List {
        /// Shows the values of this organization instead of the defaults.
        #[arg(long, value_name = "ID")]
        org: Option<OrgId>,
    },
    /// Prints a key's value.
    Get {
        /// The key, such as log.level.
        key: String,
        /// Shows the values of this organization instead of the defaults.
        #[arg(long, value_name = "ID")]
        org: Option<OrgId>,
    },
    /// Sets the default of a key, or its value for one organization.
    Set {
        /// The key, such as log.level.
        key: String,
        /// The value, as JSON: 5, true, '"debug"', '["ready"]'.
        value: String,
        /// The reason; kept in the history.
        #[arg(long)]
        reason: String,
        /// For this organization only.
        #[arg(long, value_name = "ID")]
        org: Option<OrgId>,
    },
    /// Removes a key's value, so that the default or the built-in value applies again.
    Unset {
        /// The key, such as log.level.
        key: String,
        /// The reason; kept in the history.
        #[arg(long)]
        reason: String,
        /// For this organization only.
        #[arg(long, value_name = "ID")]
        org: Option<OrgId>,
    },
}

#[expect(clippy::print_stdout, reason = "a command prints its result")]
pub(crate) async fn run(command: Command, database: &Database) -> anyhow::Result<()> {
    match command {
        Command::List { org } => {
            let layers = read(database, org).await?;
            for key in catalog::all() {
                let (value, source) = value_of(key, &layers);
                println!("{:<34} {value}  ({source})", key.name);
            }
        }
        Command::Get { key, org } => {
            let key = catalog::find(&key).with_context(|| unknown(&key))?;
            println!("{}", value_of(key, &read(database, org).await?).0);
        }
        Command::Set { key, value, reason, org } => {
            let value = serde_json::from_str(&value).with_context(|| {
                format!("{value} is not valid JSON; a string needs double quotes: '\"{value}\"'")
            })?;
            println!("revision {}", change(database, org, key, Some(value), reason).await?);
        }
        Command::Unset { key, reason, org } => {
            println!("revision {}", change(database, org, key, None, reason).await?);
        }
    }
    Ok(())
}

/// The values that are set, from the narrowest scope to the widest, each with the scope's name.
type Layers = Vec<(Values, &'static str)>;

async fn read(database: &Database, org: Option<OrgId>) -> anyhow::Result<Layers> {
    let mut layers = Layers::new();
    for (org, source) in org
        .map(|org| (org, "organization"))
        .into_iter()
        .chain([(OrgId::PLATFORM, "default, set by an operator")])
    {
        let values = Values::read(&mut database.org_tx(&PRINCIPAL, org).await?).await?;
        if values.changed_at.is_none() {
            bail!(no_organization(org));
        }
        layers.push((values, source));
    }
    Ok(layers)
}

fn value_of<'v>(key: &'v catalog::Key, layers: &'v Layers) -> (&'v Value, &'static str) {
    let set =
        |(values, source): &'v (Values, &'static str)| Some((values.organization.get(key.name)?, *source));
    layers.iter().find_map(set).unwrap_or((&key.builtin, "builtin"))
}

async fn change(
    database: &Database,
    org: Option<OrgId>,
    key: String,
    value: Option<Value>,
    reason: String,
) -> anyhow::Result<i64> {
    let org = org.unwrap_or(OrgId::PLATFORM);
    let mut tx = database.org_tx(&PRINCIPAL, org).await?;
    let change =
        Change { project: None, key: key.clone(), value, author: None, reason, expected_revision: None };
    let revision = match write::apply(&mut tx, change).await {
        Ok(revision) => revision,
        Err(ChangeError::UnknownKey) => bail!(unknown(&key)),
        Err(ChangeError::Database(DbError::NotFound)) => bail!(no_organization(org)),
        Err(ChangeError::Invalid(violations)) => {
            let wrong: Vec<_> = violations.iter().map(|wrong| wrong.detail.as_str()).collect();
            bail!("invalid value for {key}: {}", wrong.join("; "))
        }
        Err(error) => return Err(error.into()),
    };
    tx.commit().await?;
    // The process ends before the task that combines notifications would send one.
    database.wake_relay().await?;
    Ok(revision)
}

fn no_organization(org: OrgId) -> String {
    format!(
        "organization {org} does not exist, or has no configuration yet because it is still being created"
    )
}

fn unknown(key: &str) -> String {
    format!("unknown key {key}; `atrium-ctl config list` lists all keys")
}
