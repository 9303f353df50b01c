//! Servers that run already, named by environment variables, instead of private ones.

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};
use sqlx::{Connection as _, PgConnection};

use crate::postgres::create_database;
use crate::urls::{DatabaseUrls, Passwords, on_database, parse};

/// What the environment names; `None` means: start a private one.
#[derive(Clone, Debug, Default)]
pub struct Existing {
    /// The database, and the passwords its roles have or get.
    pub postgres: Option<(DatabaseUrls, Passwords)>,
    /// Redis.
    pub redis: Option<String>,
}

impl Existing {
    /// Reads `ATRIUM_DATABASE_URL`, `ATRIUM_REDIS_URL` and what goes with them.
    ///
    /// `ATRIUM_OWNER_DATABASE_URL` names a role that may create roles. Without it `ATRIUM_DATABASE_URL` has to, and
    /// the addresses of Atrium's own roles follow from it.
    ///
    /// # Errors
    /// When an address cannot be used.
    pub fn from_env() -> anyhow::Result<Self> {
        let read = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let redis = read("ATRIUM_REDIS_URL");
        if let Some(redis) = &redis {
            redis::Client::open(redis.as_str()).context(
                "ATRIUM_REDIS_URL is not an address of Redis; it looks like redis://127.0.0.1:6379/0",
            )?;
        }
        let postgres = match (read("ATRIUM_DATABASE_URL"), read("ATRIUM_OWNER_DATABASE_URL")) {
            (None, None) => None,
            (None, Some(owner)) | (Some(owner), None) => Some(follow_from(&owner)?),
            (Some(app), Some(owner)) => {
                let role = parse(&app).context("ATRIUM_DATABASE_URL")?.get_username().to_owned();
                if role != "atrium_app" {
                    bail!(
                        "ATRIUM_DATABASE_URL names the role {role}. Next to ATRIUM_OWNER_DATABASE_URL it has to name \
                         atrium_app; or leave ATRIUM_OWNER_DATABASE_URL away, and Atrium's roles follow from a role \
                         that may create roles"
                    );
                }
                let (mut urls, mut passwords) = follow_from(&owner)?;
                passwords.app = password_of(&app).context("ATRIUM_DATABASE_URL has to carry the password")?;
                urls.app = app;
                for (name, url, password) in [
                    ("ATRIUM_RELAY_DATABASE_URL", &mut urls.relay, &mut passwords.relay),
                    ("ATRIUM_WATCHER_DATABASE_URL", &mut urls.watcher, &mut passwords.watcher),
                ] {
                    if let Some(given) = read(name) {
                        *password = password_of(&given)
                            .with_context(|| format!("{name} has to carry the password"))?;
                        *url = given;
                    }
                }
                Some((urls, passwords))
            }
        };
        Ok(Self { postgres, redis })
    }
}

/// Makes the database when the server does not have it yet.
///
/// # Errors
/// When the server does not answer or refuses.
pub async fn ensure_database(owner_url: &str) -> anyhow::Result<()> {
    match PgConnection::connect(owner_url).await {
        Ok(connection) => Ok(connection.close().await?),
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("3D000") => {
            let name = parse(owner_url)?.get_database().unwrap_or("atrium").to_owned();
            let mut connection = PgConnection::connect(&on_database(owner_url, "postgres")?).await?;
            create_database(&mut connection, &name, None).await
        }
        Err(error) => Err(error).context("the PostgreSQL named by the environment cannot be used"),
    }
}

/// The addresses of Atrium's roles on the server of this one. Their passwords are computed, not random: two stacks on
/// one server must not lock each other out.
fn follow_from(owner: &str) -> anyhow::Result<(DatabaseUrls, Passwords)> {
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

/// The password inside an address, as it stands there.
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
    use super::{follow_from, password_of};

    #[test]
    fn passwords_are_found() {
        assert_eq!(password_of("postgres://u:p%40s:s@h:1/d").as_deref(), Some("p@s:s"));
        assert_eq!(password_of("postgres://u@h/d"), None);
        assert_eq!(password_of("postgres://h/d"), None);
    }

    #[test]
    fn roles_follow_from_the_administrator_and_always_the_same_way() {
        let (first, _) = follow_from("postgres://postgres:secret@127.0.0.1:5432/demo").expect("parses");
        let (second, _) = follow_from("postgres://postgres:secret@127.0.0.1:5432/demo").expect("parses");
        assert_eq!(first.app, second.app);
        assert!(first.app.starts_with("postgres://atrium_app:"), "{}", first.app);
        assert_ne!(password_of(&first.app), password_of(&first.relay));
        let (other, _) = follow_from("postgres://postgres:other@127.0.0.1:5432/demo").expect("parses");
        assert_ne!(first.app, other.app);
    }
}
