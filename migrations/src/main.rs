//! `atrium-migrate`: brings the database to the shape this release needs, then exits.

use anyhow::Context as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let owner_url = std::env::var("ATRIUM_OWNER_DATABASE_URL").context(
        "ATRIUM_OWNER_DATABASE_URL is not set; it names the database as a role that may create roles, \
         for example postgres://postgres:secret@127.0.0.1:5432/atrium",
    )?;
    atrium_migrations::migrate(&owner_url, &atrium_migrations::RolePasswords::from_env()).await
}
