//! A complete Atrium for one test: real processes with a database and a Redis.

use std::sync::Arc;

use atrium_contract::Contract;
use atrium_servers::clock::Clock;
use atrium_servers::folder::Folder;
use atrium_servers::names::Names;
use atrium_servers::ports::loopback;
use atrium_servers::postgres::{Durability, PrivatePostgres};
use atrium_servers::proxy::Proxy;
use atrium_servers::redis::PrivateRedis;
use atrium_servers::urls::{DatabaseUrls, Passwords, parse};
use serde_json::Value;

use crate::client::Client;
use crate::database::TestDatabase;
use crate::environment::Environment;
use crate::guest::Guest;
use crate::keys;
use crate::operator;
use crate::redis_database::TestRedis;
use crate::service::{Kind, Overrides, Service, Wiring};

/// The default origin of tests: the processes themselves listen on any free port.
const PUBLIC_URL: &str = "http://127.0.0.1:8080";
/// How much of each log is printed when a test panics.
const LOG_LINES: usize = 150;

/// What to start.
#[derive(Clone, Debug)]
pub struct AtriumBuilder {
    apis: usize,
    workers: Vec<Option<String>>,
    private_postgres: Option<Durability>,
    small_disk: bool,
    private_redis: bool,
    database_by_proxy: bool,
    small_redis_disk: bool,
    own_clocks: bool,
    own_names: bool,
    raised_limits: bool,
    defaults: Vec<(String, Value)>,
    settings: Vec<(String, String)>,
    public_url: String,
}

/// Running processes. Dropping it kills them; when the test panics, their logs are printed.
pub struct Atrium {
    apis: Vec<Service>,
    workers: Vec<Service>,
    wiring: Wiring,
    contract: Arc<Contract>,
    own_clocks: bool,
    names: Option<Arc<Names>>,
    postgres: Postgres,
    database_proxy: Option<Proxy>,
    redis: Redis,
    // Last: fields are dropped in order, and the processes use the keys and logs in it.
    _folder: Folder,
}

enum Postgres {
    Shared(TestDatabase),
    Private(PrivatePostgres),
}

enum Redis {
    Shared(TestRedis),
    Private(PrivateRedis),
}

impl Default for AtriumBuilder {
    fn default() -> Self {
        Self {
            apis: 1,
            workers: vec![None],
            private_postgres: None,
            small_disk: false,
            private_redis: false,
            database_by_proxy: false,
            small_redis_disk: false,
            own_clocks: false,
            own_names: false,
            raised_limits: true,
            defaults: Vec::new(),
            settings: Vec::new(),
            public_url: PUBLIC_URL.to_owned(),
        }
    }
}

impl AtriumBuilder {
    /// This many API processes instead of one.
    #[must_use]
    pub fn apis(mut self, count: usize) -> Self {
        self.apis = count;
        self
    }

    /// One worker process for each of these lists of roles, instead of one with all roles.
    #[must_use]
    pub fn workers<'a>(mut self, roles: impl IntoIterator<Item = &'a str>) -> Self {
        self.workers = roles.into_iter().map(|roles| Some(roles.to_owned())).collect();
        self
    }

    /// This many worker processes, each with all roles.
    #[must_use]
    pub fn full_workers(mut self, count: usize) -> Self {
        self.workers = vec![None; count];
        self
    }

    /// A PostgreSQL of its own, to be stopped or killed.
    #[must_use]
    pub fn private_postgres(mut self, durability: Durability) -> Self {
        self.private_postgres = Some(durability);
        self
    }

    /// A Redis of its own, to be flushed, paused or killed.
    #[must_use]
    pub fn private_redis(mut self) -> Self {
        self.private_redis = true;
        self
    }

    /// A proxy between Atrium's processes and PostgreSQL, whose connections can be broken.
    #[must_use]
    pub fn database_by_proxy(mut self) -> Self {
        self.database_by_proxy = true;
        self
    }

    /// A PostgreSQL of its own, every commit on disk, and the disk so small that it can be filled
    /// ([`PrivatePostgres::disk`]). Needs root, or user namespaces.
    #[must_use]
    pub fn small_disk(mut self) -> Self {
        self.private_postgres = Some(Durability::Durable);
        self.small_disk = true;
        self
    }

    /// A Redis of its own, whose append-only file is on a small disk that can be filled ([`PrivateRedis::disk`]).
    /// Needs root, or user namespaces.
    #[must_use]
    pub fn small_redis_disk(mut self) -> Self {
        self.private_redis = true;
        self.small_redis_disk = true;
        self
    }

    /// A clock of its own for each process, to be set while it runs ([`Service::clock`]). PostgreSQL and Redis use
    /// the machine's.
    #[must_use]
    pub fn own_clocks(mut self) -> Self {
        self.own_clocks = true;
        self
    }

    /// The processes find PostgreSQL and Redis by a host name that can be made unresolvable ([`Atrium::names`]). Needs
    /// root, or user namespaces.
    #[must_use]
    pub fn own_names(mut self) -> Self {
        self.own_names = true;
        self
    }

    /// The built-in limits, instead of a hundred times as much.
    #[must_use]
    pub fn default_limits(mut self) -> Self {
        self.raised_limits = false;
        self
    }

    /// A value of the default scope, set before the processes start.
    #[must_use]
    pub fn default_value(mut self, key: &str, value: Value) -> Self {
        self.defaults.push((key.to_owned(), value));
        self
    }

    /// A setting of the processes (an environment variable).
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Another issuer and origin than `http://127.0.0.1:8080`.
    #[must_use]
    pub fn public_url(mut self, url: &str) -> Self {
        url.clone_into(&mut self.public_url);
        self
    }

    /// Starts everything and waits until it is ready.
    ///
    /// # Panics
    /// When something does not start.
    pub async fn start(self) -> Atrium {
        self.try_start().await.unwrap_or_else(|error| panic!("Atrium does not start: {error:#}"))
    }

    async fn try_start(self) -> anyhow::Result<Atrium> {
        let folder = Folder::create()?;
        let (keys, logs) = (folder.private("keys", None)?, folder.private("logs", None)?);
        keys::generate(&keys, "test-1")?;

        let (postgres, database) = match self.private_postgres {
            None => {
                let database = if self.raised_limits {
                    TestDatabase::with_raised_limits(&logs).await?
                } else {
                    TestDatabase::create().await
                };
                let urls = database.urls().clone();
                (Postgres::Shared(database), urls)
            }
            Some(durability) => {
                let server = if self.small_disk {
                    PrivatePostgres::start_on_small_disk(durability).await?
                } else {
                    PrivatePostgres::start(durability).await?
                };
                let urls = server.migrated("atrium", &Passwords::random()).await?;
                (Postgres::Private(server), urls)
            }
        };
        let redis = match (self.private_redis, self.small_redis_disk) {
            (false, _) => Redis::Shared(TestRedis::database().await),
            (true, false) => Redis::Private(PrivateRedis::start().await?),
            (true, true) => Redis::Private(PrivateRedis::start_on_small_disk().await?),
        };
        let proxy = if self.database_by_proxy {
            let port = parse(&database.app)?.get_port();
            Some(Proxy::before(port).await?)
        } else {
            None
        };
        let database = match &proxy {
            Some(proxy) => database.through(proxy.port())?,
            None => database,
        };
        let wiring = Wiring {
            binaries: Environment::get().binaries.clone(),
            database,
            redis: redis.url(),
            keys,
            public_url: self.public_url,
            logs,
            log_format: "json",
            death_signal: "KILL",
            settings: self.settings,
        };
        // The shared server has a template with them.
        if self.raised_limits && matches!(postgres, Postgres::Private(_)) {
            operator::raise_limits(&wiring).await?;
        }
        for (key, value) in &self.defaults {
            operator::set_default(&wiring, key, value, "a test").await?;
        }

        let names = if self.own_names { Some(Arc::new(Names::make(folder.path()).await?)) } else { None };

        let mut atrium = Atrium {
            apis: Vec::new(),
            workers: Vec::new(),
            contract: Arc::new(Contract::load()?),
            wiring,
            own_clocks: self.own_clocks,
            names,
            postgres,
            database_proxy: proxy,
            redis,
            _folder: folder,
        };
        for index in 0..self.apis {
            let api = atrium.launch(format!("api-{index}"), Kind::Api(loopback(0))).await?;
            atrium.apis.push(api);
        }
        for (index, roles) in self.workers.into_iter().enumerate() {
            let worker = atrium.launch(format!("workers-{index}"), Kind::Workers(roles)).await?;
            atrium.workers.push(worker);
        }
        for service in atrium.services() {
            service.ready().await?;
        }
        Ok(atrium)
    }
}

impl Redis {
    fn url(&self) -> String {
        match self {
            Self::Shared(database) => database.url().to_owned(),
            Self::Private(server) => server.url(0),
        }
    }
}

impl Atrium {
    /// One API process and one worker process with all roles, on the shared servers.
    ///
    /// # Panics
    /// When something does not start.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Starts with other choices than [`Atrium::start`].
    #[must_use]
    pub fn builder() -> AtriumBuilder {
        AtriumBuilder::default()
    }

    /// A client of the first API process, without identity; it checks every answer against the contract.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client_of(0)
    }

    /// A client of one of the API processes.
    ///
    /// # Panics
    /// When there is no such process.
    #[must_use]
    #[track_caller]
    pub fn client_of(&self, api: usize) -> Client {
        Client::new(self.apis[api].url()).with_contract(Arc::clone(&self.contract))
    }

    /// Signs in a new guest.
    ///
    /// # Panics
    /// When that fails.
    pub async fn guest(&self) -> Guest {
        Guest::sign_in(&self.client())
            .await
            .unwrap_or_else(|error| panic!("cannot sign in a guest: {error:#}"))
    }

    /// The address of the first API process.
    #[must_use]
    pub fn url(&self) -> String {
        self.apis[0].url()
    }

    /// The origin for cookies and cross-site checks.
    #[must_use]
    pub fn public_url(&self) -> &str {
        &self.wiring.public_url
    }

    /// An API process.
    ///
    /// # Panics
    /// When there is no such process.
    #[must_use]
    #[track_caller]
    pub fn api(&self, index: usize) -> &Service {
        &self.apis[index]
    }

    /// A worker process.
    ///
    /// # Panics
    /// When there is no such process.
    #[must_use]
    #[track_caller]
    pub fn worker(&self, index: usize) -> &Service {
        &self.workers[index]
    }

    /// All processes.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.apis.iter().chain(&self.workers)
    }

    /// Starts one more API process.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn add_api(&mut self) -> &Service {
        let kind = Kind::Api(loopback(0));
        let service = self.add(format!("api-{}", self.apis.len()), kind).await;
        self.apis.push(service);
        &self.apis[self.apis.len() - 1]
    }

    /// Starts one more worker process.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn add_worker(&mut self, roles: Option<&str>) -> &Service {
        let kind = Kind::Workers(roles.map(str::to_owned));
        let service = self.add(format!("workers-{}", self.workers.len()), kind).await;
        self.workers.push(service);
        &self.workers[self.workers.len() - 1]
    }

    async fn launch(&self, name: String, kind: Kind) -> anyhow::Result<Service> {
        let file = self.wiring.logs.join(format!("{name}.clock"));
        let clock = if self.own_clocks { Some(Clock::make(file)?) } else { None };
        let overrides = Overrides { clock, names: self.names.clone() };
        Service::start_within(overrides, name, kind, loopback(0), &self.wiring).await
    }

    async fn add(&self, name: String, kind: Kind) -> Service {
        let start = async {
            let service = self.launch(name, kind).await?;
            service.ready().await?;
            anyhow::Ok(service)
        };
        start.await.unwrap_or_else(|error| panic!("one more process does not start: {error:#}"))
    }

    /// The database's addresses.
    #[must_use]
    pub fn database(&self) -> &DatabaseUrls {
        &self.wiring.database
    }

    /// A connection as the superuser, whom the tenant wall does not restrict.
    ///
    /// # Panics
    /// When PostgreSQL does not answer.
    pub async fn superuser(&self) -> sqlx::PgConnection {
        use sqlx::Connection as _;
        sqlx::PgConnection::connect(&self.wiring.database.owner)
            .await
            .unwrap_or_else(|error| panic!("PostgreSQL does not answer: {error}"))
    }

    /// The private PostgreSQL.
    ///
    /// # Panics
    /// If the builder did not request one.
    #[must_use]
    #[track_caller]
    pub fn postgres(&self) -> &PrivatePostgres {
        match &self.postgres {
            Postgres::Private(server) => server,
            Postgres::Shared(database) => panic!("{} is on the shared PostgreSQL", database.name()),
        }
    }

    /// The proxy in front of PostgreSQL.
    ///
    /// # Panics
    /// If the builder did not request one.
    #[must_use]
    #[track_caller]
    pub fn database_proxy(&self) -> &Proxy {
        self.database_proxy.as_ref().expect("the builder was asked for a proxy in front of PostgreSQL")
    }

    /// The private Redis.
    ///
    /// # Panics
    /// If the builder did not request one.
    #[must_use]
    #[track_caller]
    pub fn redis(&self) -> &PrivateRedis {
        match &self.redis {
            Redis::Private(server) => server,
            Redis::Shared(_) => panic!("this test uses a database of the shared Redis"),
        }
    }

    /// The name service by which the processes find PostgreSQL and Redis.
    ///
    /// # Panics
    /// If the builder did not request one.
    #[must_use]
    #[track_caller]
    pub fn names(&self) -> &Names {
        self.names.as_deref().expect("the builder was asked for names of PostgreSQL and Redis")
    }

    /// The address of Redis.
    #[must_use]
    pub fn redis_url(&self) -> &str {
        &self.wiring.redis
    }

    /// A connection to Redis, to inspect its data.
    ///
    /// # Panics
    /// When Redis does not answer.
    pub async fn redis_connection(&self) -> redis::aio::MultiplexedConnection {
        let connect =
            async { redis::Client::open(self.redis_url())?.get_multiplexed_async_connection().await };
        connect.await.unwrap_or_else(|error| panic!("Redis does not answer: {error}"))
    }

    /// Sets a value of the default scope while everything runs.
    ///
    /// # Panics
    /// If the API rejects it.
    pub async fn set_default(&self, key: &str, value: Value) {
        operator::set_default(&self.wiring, key, &value, "a test")
            .await
            .unwrap_or_else(|error| panic!("cannot set the default of {key}: {error:#}"));
    }

    /// Sets a value for one organization, as the operator.
    ///
    /// # Panics
    /// If the API rejects it.
    pub async fn set_for(&self, org: &str, key: &str, value: Value) {
        operator::set_for(&self.wiring, org, key, &value, "a test")
            .await
            .unwrap_or_else(|error| panic!("cannot set {key} of {org}: {error:#}"));
    }

    /// What the processes were started with.
    #[must_use]
    pub fn wiring(&self) -> &Wiring {
        &self.wiring
    }
}

impl Drop for Atrium {
    #[expect(clippy::print_stderr, reason = "the test runner shows it with the failed test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            for service in self.services() {
                eprintln!(
                    "──── {}: the last lines of its log\n{}",
                    service.name(),
                    service.log_tail(LOG_LINES)
                );
            }
        }
    }
}
