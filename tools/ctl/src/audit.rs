//! Lists an organization's audit log, and verifies its chain of hashes.

use anyhow::{bail, ensure};
use atrium_shared::{
    audit::{self, Verdict},
    db::{Database, OrgTx, Principal},
    ids::OrgId,
};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Recomputes the chain of hashes. Fails with the number of the first entry that was changed. Compare the output
    /// with an earlier one or with an export: a log that was truncated, or rewritten as a whole, has a valid chain with
    /// another last hash.
    Verify {
        /// The organization's id.
        #[arg(long)]
        org: OrgId,
    },
    /// Prints the newest entries, one JSON object per line.
    List {
        /// The organization's id.
        #[arg(long)]
        org: OrgId,
        /// The maximum number of entries.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..))]
        limit: i64,
    },
}

#[expect(clippy::print_stdout, reason = "a command prints its result")]
pub(crate) async fn run(command: Command, database: &Database) -> anyhow::Result<()> {
    match command {
        Command::Verify { org } => match audit::verify(&mut open(database, org).await?).await? {
            Verdict::Whole { entries, last } => {
                println!("entries {entries}");
                println!("last {}", last.as_deref().unwrap_or("none"));
            }
            Verdict::Broken { seq } => bail!("the audit log was changed at entry {seq}"),
        },
        Command::List { org, limit } => {
            for entry in audit::entries(&mut open(database, org).await?, None, None, limit).await? {
                println!("{}", serde_json::to_string(&entry)?);
            }
        }
    }
    Ok(())
}

async fn open(database: &Database, org: OrgId) -> anyhow::Result<OrgTx> {
    let mut tx = database.org_tx(&Principal::System(Principal::OPERATOR), org).await?;
    let exists =
        sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM orgs WHERE id = $1) AS "exists!""#, org as OrgId)
            .fetch_one(tx.conn())
            .await?;
    ensure!(exists, "organization {org} does not exist");
    Ok(tx)
}
