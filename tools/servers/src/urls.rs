//! The database's addresses, one for each role.

use std::str::FromStr as _;

use anyhow::Context as _;
use atrium_migrations::RolePasswords;
use sqlx::postgres::PgConnectOptions;

use crate::scram::verifier;

/// One database, as each role reaches it.
#[derive(Clone, Debug)]
pub struct DatabaseUrls {
    /// A role that may create roles; migrations run through it.
    pub owner: String,
    /// `atrium_app`: restricted by the tenant wall.
    pub app: String,
    /// `atrium_relay`: reads the outbox.
    pub relay: String,
    /// `atrium_watcher`: reads configuration revisions and revoked tokens.
    pub watcher: String,
}

/// Passwords of the three roles that log in.
#[derive(Clone, Debug)]
pub struct Passwords {
    /// Of `atrium_app`.
    pub app: String,
    /// Of `atrium_relay`.
    pub relay: String,
    /// Of `atrium_watcher`.
    pub watcher: String,
}

impl Passwords {
    /// Random ones.
    #[must_use]
    pub fn random() -> Self {
        Self { app: random_password(), relay: random_password(), watcher: random_password() }
    }

    /// For migrations of a server that is ours alone: what the server keeps of them, cheap to check. They have to be
    /// random.
    #[must_use]
    pub(crate) fn verifiers(&self) -> RolePasswords {
        let [app, relay, watcher] =
            [&self.app, &self.relay, &self.watcher].map(|password| Some(verifier(password)));
        RolePasswords { app, relay, watcher }
    }

    /// In the form that migrations take.
    #[must_use]
    pub fn for_migration(&self) -> RolePasswords {
        RolePasswords {
            app: Some(self.app.clone()),
            relay: Some(self.relay.clone()),
            watcher: Some(self.watcher.clone()),
        }
    }
}

impl DatabaseUrls {
    /// The same database for every role.
    ///
    /// # Errors
    /// When the owner's address is not one of PostgreSQL.
    pub fn new(owner: &str, passwords: &Passwords) -> anyhow::Result<Self> {
        Ok(Self {
            owner: owner.to_owned(),
            app: as_role(owner, "atrium_app", &passwords.app)?,
            relay: as_role(owner, "atrium_relay", &passwords.relay)?,
            watcher: as_role(owner, "atrium_watcher", &passwords.watcher)?,
        })
    }

    /// The same, for Atrium's own roles through a proxy on this port of the loopback address.
    ///
    /// # Errors
    /// When an address has no role.
    pub fn through(&self, port: u16) -> anyhow::Result<Self> {
        Ok(Self {
            owner: self.owner.clone(),
            app: on_port(&self.app, port)?,
            relay: on_port(&self.relay, port)?,
            watcher: on_port(&self.watcher, port)?,
        })
    }
}

/// The same address for another role. The password must not need escaping.
///
/// Done on the text: an address that sqlx writes has parameters that only sqlx understands.
pub(crate) fn as_role(url: &str, role: &str, password: &str) -> anyhow::Result<String> {
    let (scheme, rest) = split(url)?;
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Ok(format!("{scheme}://{role}:{password}@{host}{tail}"))
}

/// The same server and role, another database.
///
/// # Errors
/// When this is not an address of PostgreSQL.
pub fn on_database(url: &str, database: &str) -> anyhow::Result<String> {
    let (scheme, rest) = split(url)?;
    let (path, query) = rest.find('?').map_or((rest, ""), |at| rest.split_at(at));
    let authority = path.split('/').next().unwrap_or_default();
    Ok(format!("{scheme}://{authority}/{database}{query}"))
}

/// The same role and database on another port of the loopback address.
pub(crate) fn on_port(url: &str, port: u16) -> anyhow::Result<String> {
    let (scheme, rest) = split(url)?;
    let (role, tail) = rest.split_once('@').context("the address has no role")?;
    let tail = tail.find(['/', '?']).map_or("", |at| &tail[at..]);
    Ok(format!("{scheme}://{role}@127.0.0.1:{port}{tail}"))
}

/// The role and the password of an address, which must not need escaping.
pub(crate) fn credentials(url: &str) -> anyhow::Result<(&str, &str)> {
    let (_, rest) = split(url)?;
    let (authority, _) = rest.split_once('@').context("the address has no role")?;
    authority.split_once(':').context("the address has no password")
}

fn split(url: &str) -> anyhow::Result<(&str, &str)> {
    parse(url)?;
    url.split_once("://").context("not an address")
}

/// The address as options of a connection.
///
/// # Errors
/// When this is not an address of PostgreSQL.
pub fn parse(url: &str) -> anyhow::Result<PgConnectOptions> {
    PgConnectOptions::from_str(url)
        .context("not an address of PostgreSQL; expected postgres://user:password@127.0.0.1:5432/atrium")
}

/// 128 random bits as hexadecimal digits: needs no escaping anywhere.
#[must_use]
pub fn random_password() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::{as_role, credentials, on_database, on_port, parse};

    const URL: &str = "postgres://postgres:p%40ss@127.0.0.1:5433/atrium";

    #[test]
    fn roles_and_databases_are_exchanged() {
        let app = parse(&as_role(URL, "atrium_app", "secret").expect("parses")).expect("parses");
        assert_eq!(app.get_username(), "atrium_app");
        assert_eq!((app.get_host(), app.get_port(), app.get_database()), ("127.0.0.1", 5433, Some("atrium")));
        let other = parse(&on_database(URL, "other").expect("parses")).expect("parses");
        assert_eq!((other.get_username(), other.get_database()), ("postgres", Some("other")));
        let pooled = parse(&on_port(URL, 6432).expect("parses")).expect("parses");
        assert_eq!((pooled.get_port(), pooled.get_database()), (6432, Some("atrium")));
        assert_eq!(credentials(URL).expect("parses"), ("postgres", "p%40ss"));
    }

    #[test]
    fn other_addresses_are_refused() {
        assert!(parse("not an address").is_err());
    }
}
