//! Suspends and resumes organizations, without their owners' consent.

use anyhow::{bail, ensure};
use atrium_shared::{
    db::{Database, DbError, OrgTx, Principal},
    ids::OrgId,
    organizations::{self, OrganizationError, SuspendedBy},
};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Suspends an organization: it can be read and exported, but not changed, and its streams end. Its owners cannot
    /// resume it.
    Suspend {
        /// The organization's id.
        org: OrgId,
        /// The reason; shown to its owners in the audit log.
        #[arg(long)]
        reason: String,
    },
    /// Resumes a suspended organization, also after a suspension by its owner.
    Resume {
        /// The organization's id.
        org: OrgId,
        /// The reason; shown to its owners in the audit log.
        #[arg(long)]
        reason: String,
    },
}

#[expect(clippy::print_stdout, reason = "a command prints its result")]
pub(crate) async fn run(command: Command, database: &Database) -> anyhow::Result<()> {
    match command {
        Command::Suspend { org, reason } => {
            let mut tx = open(database, org, &reason).await?;
            done(organizations::suspend(&mut tx, SuspendedBy::Operator, Some(&reason)).await, org)?;
            tx.commit().await?;
            println!("suspended");
        }
        Command::Resume { org, reason } => {
            let mut tx = open(database, org, &reason).await?;
            done(organizations::resume(&mut tx, SuspendedBy::Operator, Some(&reason)).await, org)?;
            tx.commit().await?;
            println!("resumed");
        }
    }
    Ok(())
}

async fn open(database: &Database, org: OrgId, reason: &str) -> anyhow::Result<OrgTx> {
    ensure!(org != OrgId::PLATFORM, "the platform itself cannot be suspended");
    ensure!((1..=500).contains(&reason.chars().count()), "the reason must have 1 to 500 characters");
    Ok(database.org_tx(&Principal::System(Principal::OPERATOR), org).await?)
}

fn done(result: Result<(), OrganizationError>, org: OrgId) -> anyhow::Result<()> {
    match result {
        Err(OrganizationError::Database(DbError::NotFound)) => bail!("organization {org} does not exist"),
        Err(OrganizationError::NotReady) => {
            bail!("the organization is still being created, or its creation failed")
        }
        Err(OrganizationError::Deleting) => {
            bail!("the organization is being deleted; only its owners can restore it")
        }
        other => Ok(other?),
    }
}
