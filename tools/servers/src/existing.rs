//! Running servers, given by environment variables, to use instead of private ones.

use std::time::Duration;

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};
use sqlx::{Connection as _, PgConnection};

use crate::binaries::{REDIS_WANTED, too_old};
use crate::postgres::create_database;
use crate::urls::{DatabaseUrls, Passwords, on_database, parse};

/// How long a Redis may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The servers that the environment gives; `None` means: start a private one.
#[derive(Clone, Debug, Default)]
pub struct Existing {
    /// The database.
    pub postgres: Option<ExistingPostgres>,
    /// Redis.
    pub redis: Option<String>,
}

/// A database that the environment gives.
#[derive(Clone, Debug)]
pub struct ExistingPostgres {
    /// The setting with its owner's address, for messages.
    pub setting: &'static str,
    /// Its addresses, one for each role.
    pub urls: DatabaseUrls,
    /// The passwords its roles have or get.
    pub passwords: Passwords,
}

const APP: &str = "ATRIUM_DATABASE_URL";
const OWNER: &str = "ATRIUM_OWNER_DATABASE_URL";

impl Existing {
    /// Reads `ATRIUM_DATABASE_URL`, `ATRIUM_REDIS_URL` and the related settings.
    ///
    /// `ATRIUM_OWNER_DATABASE_URL` is the address of a role that may create roles. Without it `ATRIUM_DATABASE_URL` has
    /// to be that, and the addresses of Atrium's own roles are derived from it.
    ///
    /// # Errors
    /// When an address cannot be used.
    pub fn from_env() -> anyhow::Result<Self> {
        let read = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let redis = read("ATRIUM_REDIS_URL");
        if let Some(redis) = &redis {
            redis::Client::open(redis.as_str()).map_err(|error| redis_fault(&error.to_string()))?;
        }
        let postgres = match (read(APP), read(OWNER)) {
            (None, None) => None,
            (None, Some(owner)) => Some(ExistingPostgres::derive(OWNER, &owner)?),
            (Some(owner), None) => Some(ExistingPostgres::derive(APP, &owner)?),
            (Some(app), Some(owner)) => {
                let role = parse(&app).context(APP)?.get_username().to_owned();
                if role != "atrium_app" {
                    bail!(
                        "ATRIUM_DATABASE_URL uses the role {role}. Together with ATRIUM_OWNER_DATABASE_URL it has to use \
                         atrium_app. Or unset ATRIUM_OWNER_DATABASE_URL, and Atrium's roles are derived from a role \
                         that may create roles"
                    );
                }
                let mut existing = ExistingPostgres::derive(OWNER, &owner)?;
                let ExistingPostgres { urls, passwords, .. } = &mut existing;
                passwords.app =
                    password_of(&app).context("ATRIUM_DATABASE_URL has to contain the password")?;
                urls.app = app;
                for (name, url, password) in [
                    ("ATRIUM_RELAY_DATABASE_URL", &mut urls.relay, &mut passwords.relay),
                    ("ATRIUM_WATCHER_DATABASE_URL", &mut urls.watcher, &mut passwords.watcher),
                ] {
                    if let Some(given) = read(name) {
                        *password = password_of(&given)
                            .with_context(|| format!("{name} has to contain the password"))?;
                        *url = given;
                    }
                }
                Some(existing)
            }
        };
        Ok(Self { postgres, redis })
    }

    /// Checks that Redis, if one is given, answers and is new enough, before anything else starts.
    ///
    /// # Errors
    /// When it does not answer, or is too old.
    pub async fn check_redis(&self) -> anyhow::Result<()> {
        let Some(url) = &self.redis else { return Ok(()) };
        let client = redis::Client::open(url.as_str()).map_err(|error| redis_fault(&error.to_string()))?;
        let address = client.get_connection_info().addr().to_string();
        let answer = async {
            let mut connection = client.get_multiplexed_async_connection().await?;
            redis::cmd("PING").query_async::<()>(&mut connection).await?;
            redis::cmd("INFO").arg("server").query_async::<String>(&mut connection).await
        };
        let fault = match tokio::time::timeout(TIMEOUT, answer).await {
            Ok(Ok(info)) => too_old(&info),
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} seconds", TIMEOUT.as_secs())),
        };
        fault.map_or(Ok(()), |fault| Err(redis_fault(&format!("{address}: {fault}"))))
    }
}

impl ExistingPostgres {
    fn derive(setting: &'static str, owner: &str) -> anyhow::Result<Self> {
        let (urls, passwords) = derived_from(owner).context(setting)?;
        Ok(Self { setting, urls, passwords })
    }

    /// Creates the database if it does not exist yet.
    ///
    /// # Errors
    /// If the server does not respond or rejects the connection.
    pub async fn ensure_database(&self) -> anyhow::Result<()> {
        let owner = &self.urls.owner;
        match PgConnection::connect(owner).await {
            Ok(connection) => Ok(connection.close().await?),
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("3D000") => {
                let name = parse(owner)?.get_database().unwrap_or("atrium").to_owned();
                let mut connection = PgConnection::connect(&on_database(owner, "postgres")?).await?;
                create_database(&mut connection, &name, None).await
            }
            Err(error) => {
                Err(error).with_context(|| format!("cannot use the PostgreSQL of {}", self.setting))
            }
        }
    }
}

/// One line, without the address as it was given: that may contain a password.
fn redis_fault(fault: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "ATRIUM_REDIS_URL: {}; it has to be the address of {REDIS_WANTED}, for example redis://127.0.0.1:6379/0",
        fault.replace('\n', " ").trim_end_matches('.'),
    )
}

/// The addresses of Atrium's roles on the server of this one. Their passwords are computed, not random: two stacks on
/// one server must not lock each other out.
fn derived_from(owner: &str) -> anyhow::Result<(DatabaseUrls, Passwords)> {
    let parsed = parse(owner)?;
    let owner = match parsed.get_database() {
        Some(_) => owner.to_owned(),
        None => on_database(owner, "atrium")?,
    };
    let secret = password_of(&owner).unwrap_or_default();
    let derived = |role: &str| {
        let digest =
            Sha256::digest(format!("{role}\0{}\0{}\0{secret}", parsed.get_host(), parsed.get_port()));
        digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let passwords = Passwords {
        app: derived("atrium_app"),
        relay: derived("atrium_relay"),
        watcher: derived("atrium_watcher"),
    };
    Ok((DatabaseUrls::new(&owner, &passwords)?, passwords))
}

/// The password in an address, decoded.
fn password_of(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let (user, _) = rest.split('/').next()?.rsplit_once('@')?;
    let (_, password) = user.split_once(':')?;
    percent_decoded(password)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::{derived_from, password_of};

    #[test]
    fn passwords_are_found() {
        assert_eq!(password_of("postgres://u:p%40s:s@h:1/d").as_deref(), Some("p@s:s"));
        assert_eq!(password_of("postgres://u@h/d"), None);
        assert_eq!(password_of("postgres://h/d"), None);
    }

    #[test]
    fn the_addresses_of_roles_are_derived_the_same_way_each_time() {
        let (first, _) = derived_from("postgres://postgres:secret@127.0.0.1:5432/demo").expect("parses");
        let (second, _) = derived_from("postgres://postgres:secret@127.0.0.1:5432/demo").expect("parses");
        assert_eq!(first.app, second.app);
        assert!(first.app.starts_with("postgres://atrium_app:"), "{}", first.app);
        assert_ne!(password_of(&first.app), password_of(&first.relay));
        let (other, _) = derived_from("postgres://postgres:other@127.0.0.1:5432/demo").expect("parses");
        assert_ne!(first.app, other.app);
    }
}
