//! What `exec` passes to the tests, in environment variables.

use std::path::PathBuf;
use std::sync::LazyLock;

use atrium_servers::urls::Passwords;

const POSTGRES_URL: &str = "ATRIUM_TEST_POSTGRES_URL";
const TEMPLATE: &str = "ATRIUM_TEST_TEMPLATE";
const APP_PASSWORD: &str = "ATRIUM_TEST_APP_PASSWORD";
const RELAY_PASSWORD: &str = "ATRIUM_TEST_RELAY_PASSWORD";
const WATCHER_PASSWORD: &str = "ATRIUM_TEST_WATCHER_PASSWORD";
const REDIS_URL: &str = "ATRIUM_TEST_REDIS_URL";
const BINARIES: &str = "ATRIUM_BIN_DIR";

/// The shared servers, and where the binaries are.
#[derive(Clone, Debug)]
pub struct Environment {
    /// PostgreSQL as the superuser, on the database `postgres`.
    pub postgres_url: String,
    /// The migrated database to copy.
    pub template: String,
    /// The passwords of the roles.
    pub passwords: Passwords,
    /// Redis, logical database 0.
    pub redis_url: String,
    /// Where `atrium-api`, `atrium-workers` and `atrium-ctl` are.
    pub binaries: PathBuf,
}

impl Environment {
    /// The environment of the tests.
    ///
    /// # Panics
    /// When they were not started through `exec`.
    #[must_use]
    pub fn get() -> &'static Self {
        static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| {
            let read = |name: &str| {
                std::env::var(name).unwrap_or_else(|_| {
                    panic!(
                        "{name} is not set: this test needs PostgreSQL and Redis. Run it through `make test`, or \
                         `cargo run --bin atrium-devstack -- exec -- cargo test -p …`"
                    )
                })
            };
            Environment {
                postgres_url: read(POSTGRES_URL),
                template: read(TEMPLATE),
                passwords: Passwords {
                    app: read(APP_PASSWORD),
                    relay: read(RELAY_PASSWORD),
                    watcher: read(WATCHER_PASSWORD),
                },
                redis_url: read(REDIS_URL),
                binaries: PathBuf::from(read(BINARIES)),
            }
        });
        &ENVIRONMENT
    }

    /// The variables for the tests.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, String)> {
        let binaries = self.binaries.display().to_string();
        let Passwords { app, relay, watcher } = &self.passwords;
        [
            (POSTGRES_URL, &self.postgres_url),
            (TEMPLATE, &self.template),
            (APP_PASSWORD, app),
            (RELAY_PASSWORD, relay),
            (WATCHER_PASSWORD, watcher),
            (REDIS_URL, &self.redis_url),
            (BINARIES, &binaries),
        ]
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .to_vec()
    }
}
