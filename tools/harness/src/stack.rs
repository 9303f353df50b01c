//! A complete stack for development: PostgreSQL, Redis, the API and the workers, started in order and stopped in
//! reverse.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use atrium_servers::binaries::{self, Wanted};
use atrium_servers::existing::Existing;
use atrium_servers::folder::Folder;
use atrium_servers::ports::{self, loopback};
use atrium_servers::postgres::{Durability, PrivatePostgres};
use atrium_servers::redis::PrivateRedis;
use atrium_servers::urls::Passwords;

use crate::addresses::Addresses;
use crate::checkout::Checkout;
use crate::client::Client;
use crate::compile;
use crate::keys;
use crate::operator;
use crate::screen::Screen;
use crate::service::{Kind, Service, Wiring};

/// How long open work may take when the stack is stopped: short, because a person waits.
const DRAIN: Duration = Duration::from_secs(3);

/// What to start.
#[derive(Debug)]
pub struct Plan {
    /// Servers to use instead of private ones.
    pub existing: Existing,
    /// Whether the private PostgreSQL must survive a kill.
    pub durability: Durability,
    /// The API's port if it is free; otherwise, and without one, any.
    pub port: Option<u16>,
    /// Where the logs of Atrium's processes go.
    pub logs: PathBuf,
    /// Where the binaries are.
    pub binaries: PathBuf,
}

/// A running stack. [`Stack::stop`] stops it in order; dropping it kills it.
#[derive(Debug)]
pub struct Stack {
    /// One process with all worker roles.
    pub workers: Service,
    /// One API process.
    pub api: Service,
    /// The private Redis, unless another one is used.
    pub redis: Option<PrivateRedis>,
    /// The private PostgreSQL, unless another one is used.
    pub postgres: Option<PrivatePostgres>,
    wiring: Wiring,
    _folder: Arc<Folder>,
}

impl Stack {
    /// A stack for one command: private servers, no durability, any port, logs in `folder`.
    ///
    /// # Errors
    /// When something does not build or start.
    pub async fn for_one_command(folder: &Folder, screen: &Screen) -> anyhow::Result<Self> {
        let plan = Plan {
            existing: Existing::default(),
            durability: Durability::Volatile,
            port: None,
            logs: folder.private("logs", None)?,
            binaries: compile::binaries(&Checkout::find()?).await?,
        };
        Self::start(plan, screen).await
    }

    /// Shows how the logs of Atrium's processes end, after something went wrong.
    pub fn show_logs(&self, screen: &Screen) {
        for service in [&self.api, &self.workers] {
            let (name, end) = (service.name(), service.log_tail(40));
            screen.text(&format!("──── {name}: the last lines of its log\n{end}"));
        }
    }

    /// Starts everything, one visible step after the other.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn start(plan: Plan, screen: &Screen) -> anyhow::Result<Self> {
        let Plan { existing, durability, port, logs, binaries } = plan;
        existing.check_redis().await?;
        let wanted = Wanted {
            postgres: existing.postgres.is_none(),
            redis: existing.redis.is_none(),
            for_tests: false,
        };
        binaries::ensure(wanted, |text| screen.note(text))?;
        let folder = Arc::new(Folder::create()?);

        let (postgres, database) = match existing.postgres {
            None => {
                let start = PrivatePostgres::start_in(Arc::clone(&folder), durability);
                let server = screen.step("PostgreSQL, private", start).await?;
                let migrate = async { server.migrated("atrium", &Passwords::random()).await };
                let urls = screen.step("migrations", migrate).await?;
                (Some(server), urls)
            }
            Some(named) => {
                screen.note(&format!("using the PostgreSQL of {}", named.setting));
                let migrate = async {
                    named.ensure_database().await?;
                    atrium_migrations::migrate(&named.urls.owner, &named.passwords.for_migration()).await
                };
                screen.step("migrations", migrate).await?;
                (None, named.urls)
            }
        };
        let (redis, redis_url) = match existing.redis {
            None => {
                let server =
                    screen.step("Redis, private", PrivateRedis::start_in(Arc::clone(&folder))).await?;
                let url = server.url(0);
                (Some(server), url)
            }
            Some(url) => {
                screen.note("using the Redis of ATRIUM_REDIS_URL");
                (None, url)
            }
        };

        let keys = folder.private("keys", None)?;
        keys::generate(&keys, "dev-1")?;
        // Chosen before the start, because it is part of the origin that the browser's cookie is bound to.
        let port = match port {
            Some(wanted) => {
                let port = ports::preferred_or_free(wanted)?;
                if port != wanted {
                    screen.note(&format!("port {wanted} is taken; using {port}"));
                }
                port
            }
            None => ports::free()?,
        };
        let wiring = Wiring {
            binaries,
            database,
            redis: redis_url,
            keys,
            public_url: format!("http://{}", loopback(port)),
            logs,
            log_format: "text",
            death_signal: "TERM",
            settings: vec![("ATRIUM_DRAIN_SECONDS".to_owned(), DRAIN.as_secs().to_string())],
        };
        screen.step("limits raised to a hundred times the defaults", operator::raise_limits(&wiring)).await?;
        let start = async {
            tokio::try_join!(
                Service::start("api", Kind::Api(loopback(port)), loopback(0), &wiring),
                Service::start("workers", Kind::Workers(None), loopback(0), &wiring),
            )
        };
        let (api, workers) = screen.step("API and workers", start).await?;
        let ready = async { tokio::try_join!(api.ready(), workers.ready()) };
        screen.step("both ready", ready).await?;
        Ok(Self { workers, api, redis, postgres, wiring, _folder: folder })
    }

    /// The public address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.wiring.public_url
    }

    /// A client of the API, without identity.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.url())
    }

    /// The values of `.dev/env`.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        let database = &self.wiring.database;
        let mut addresses = Addresses::default()
            .owned_by_us()
            .with("ATRIUM_URL", self.url())
            .with("ATRIUM_ADMIN_URL", self.api.admin_url())
            .with("ATRIUM_WORKERS_ADMIN_URL", self.workers.admin_url())
            .with("ATRIUM_DATABASE_URL", &database.app)
            .with("ATRIUM_OWNER_DATABASE_URL", &database.owner)
            .with("ATRIUM_RELAY_DATABASE_URL", &database.relay)
            .with("ATRIUM_WATCHER_DATABASE_URL", &database.watcher)
            .with("ATRIUM_REDIS_URL", &self.wiring.redis)
            .with("ATRIUM_API_PID", self.api.pid())
            .with("ATRIUM_WORKERS_PID", self.workers.pid());
        if let Some(postgres) = &self.postgres {
            addresses = addresses.with("ATRIUM_POSTGRES_PID", postgres.pid());
        }
        if let Some(redis) = &self.redis {
            addresses = addresses.with("ATRIUM_REDIS_PID", redis.pid());
        }
        addresses
    }

    /// Stops everything in order: Atrium drains, then Redis and PostgreSQL write their data. Returns the names of the
    /// processes that had to be killed.
    pub async fn stop(&self) -> Vec<&str> {
        let grace = DRAIN + Duration::from_secs(5);
        let (api, workers) = tokio::join!(self.api.stop(grace), self.workers.stop(grace));
        if let Some(redis) = &self.redis {
            redis.stop().await;
        }
        if let Some(postgres) = &self.postgres {
            postgres.stop().await;
        }
        [(api, self.api.name()), (workers, self.workers.name())]
            .into_iter()
            .filter_map(|(stopped, name)| (!stopped).then_some(name))
            .collect()
    }
}
