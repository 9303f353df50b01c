//! The stack of a lane: private PostgreSQL and Redis, Atrium's processes, and a proxy on each line between them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use atrium_shared::crash_point::{CrashPoint, SOCKET};
use redis::aio::MultiplexedConnection;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::Mutex;

use super::points::Points;
use super::witness;
use crate::client::Client;
use crate::contract::Contract;
use crate::folder::Folder;
use crate::operator;
use crate::ports::loopback;
use crate::postgres::{Durability, PrivatePostgres};
use crate::proxy::Proxy;
use crate::redis::PrivateRedis;
use crate::service::{Kind, Service, Wiring};
use crate::urls::Passwords;

const DATABASE: &str = "atrium";
/// How long an orderly stop may take; more than what a task at a crash point is held for.
const DRAIN_SECONDS: &str = "8";
/// Each process's as `atrium_app`: all lanes share one machine.
const CONNECTIONS: &str = "5";
/// A process that cannot start on a busy machine, or because PostgreSQL is just away, is started again, as every
/// supervisor does.
const ATTEMPTS: u32 = 20;
/// How long the runner itself waits for Redis.
const RUNNER_WAITS: Duration = Duration::from_secs(15);
/// One stage starts at a time.
static STARTING: Mutex<()> = Mutex::const_new(());

pub(super) struct Stage {
    pub(super) api: Service,
    pub(super) workers: [Service; 2],
    pub(super) redis: PrivateRedis,
    pub(super) postgres: PrivatePostgres,
    pub(super) redis_proxy: Proxy,
    pub(super) postgres_proxy: Proxy,
    pub(super) points: Points,
    wiring: Wiring,
    contract: Arc<Contract>,
    _folder: Arc<Folder>,
}

impl Stage {
    /// Starts everything, healthy.
    pub(super) async fn start(binaries: &std::path::Path) -> anyhow::Result<Self> {
        let alone = STARTING.lock().await;
        let folder = Arc::new(Folder::create()?);
        let (postgres, redis) = tokio::try_join!(
            PrivatePostgres::start_in(Arc::clone(&folder), Durability::Durable),
            PrivateRedis::start_in(Arc::clone(&folder)),
        )?;
        write_at_once(&redis).await?;
        let database = postgres.migrated(DATABASE, &Passwords::random()).await?;
        witness::install(&mut superuser(&postgres).await?).await?;
        let (keys, logs) = (folder.private("keys", None)?, folder.private("logs", None)?);
        crate::keys::generate(&keys, "chaos-1")?;
        let points = Points::listen(folder.path())?;
        let (postgres_proxy, redis_proxy) =
            (Proxy::before(postgres.port()).await?, Proxy::before(redis.port()).await?);
        let wiring = Wiring {
            binaries: binaries.to_owned(),
            database: database.through(postgres_proxy.port())?,
            redis: redis.url_through(redis_proxy.port(), 0),
            keys,
            public_url: "http://127.0.0.1:8080".to_owned(),
            logs,
            log_format: "text",
            death_signal: "KILL",
            settings: vec![
                (SOCKET.to_owned(), points.socket().display().to_string()),
                ("ATRIUM_DRAIN_SECONDS".to_owned(), DRAIN_SECONDS.to_owned()),
                ("ATRIUM_DATABASE_CONNECTIONS".to_owned(), CONNECTIONS.to_owned()),
            ],
        };
        operator::raise_limits(&wiring).await?;
        let reason = "the crash matrix waits for no grace";
        operator::set_default(&wiring, "organization.deletion_grace_seconds", &0.into(), reason).await?;
        let start = async |name: &'static str, kind: Kind| {
            let mut attempt = 1;
            loop {
                match Service::start(name, kind.clone(), loopback(0), &wiring).await {
                    Err(_) if attempt < ATTEMPTS => attempt += 1,
                    started => return started,
                }
            }
        };
        // One after the other: a process that is slow to connect gives up, and lanes share the machine.
        let api = start("api", Kind::Api(loopback(0))).await?;
        let workers =
            [start("workers-0", Kind::Workers(None)).await?, start("workers-1", Kind::Workers(None)).await?];
        let contract = Arc::new(Contract::load()?);
        let stage = Self {
            api,
            workers,
            redis,
            postgres,
            redis_proxy,
            postgres_proxy,
            points,
            wiring,
            contract,
            _folder: folder,
        };
        for service in stage.services() {
            service.ready().await?;
        }
        drop(alone);
        Ok(stage)
    }

    pub(super) fn services(&self) -> impl Iterator<Item = &Service> {
        std::iter::once(&self.api).chain(&self.workers)
    }

    /// The process with this id.
    pub(super) fn service(&self, pid: u32) -> Option<&Service> {
        self.services().find(|service| service.pid() == pid)
    }

    /// Starts a process that has ended, as its supervisor would.
    pub(super) async fn start_again(&self, service: &Service) -> anyhow::Result<()> {
        let mut attempt = 1;
        loop {
            let started = async {
                service.start_again().await?;
                service.ready().await
            };
            match started.await {
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                started => return started,
            }
        }
    }

    /// The processes that pass a point.
    pub(super) fn passing(&self, point: CrashPoint) -> Vec<u32> {
        if point.name().starts_with("api.") {
            vec![self.api.pid()]
        } else {
            self.workers.iter().map(Service::pid).collect()
        }
    }

    /// A client that holds every answer against the contract.
    pub(super) fn client(&self) -> Client {
        Client::new(self.api.url()).with_contract(Arc::clone(&self.contract))
    }

    /// Past the proxy and past the wall.
    pub(super) async fn superuser(&self) -> anyhow::Result<PgConnection> {
        superuser(&self.postgres).await
    }

    /// Past the proxy.
    pub(super) async fn redis(&self) -> anyhow::Result<MultiplexedConnection> {
        // The library's half a second is too short for a machine on which several lanes play.
        let patient = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(RUNNER_WAITS))
            .set_response_timeout(Some(RUNNER_WAITS));
        let client = redis::Client::open(self.redis.url(0))?;
        Ok(client.get_multiplexed_async_connection_with_config(&patient).await?)
    }

    /// Sets the drill, or takes it away.
    pub(super) async fn drill(&self, step: Option<&str>) -> anyhow::Result<()> {
        let (key, reason) = ("saga.fail_step", "a round of the crash matrix");
        match step {
            Some(step) => operator::set_default(&self.wiring, key, &step.into(), reason).await,
            None => operator::unset_default(&self.wiring, key, reason).await,
        }
    }

    /// How the logs end.
    pub(super) fn last_words(&self, lines: usize) -> String {
        let words = self.services().map(|service| {
            format!("──── {}: the last lines of its log\n{}", service.name(), service.last_words(lines))
        });
        words.collect::<Vec<_>>().join("\n")
    }

    /// Ends it.
    pub(super) async fn stop(self) {
        for service in self.services() {
            service.stop(Duration::ZERO).await;
        }
        self.redis.kill9().await;
        self.postgres.stop().await;
    }
}

/// By default Redis postpones writes for up to two seconds while the disk is slow, and answers all the same. Then a
/// kill loses what was answered for, which is no fault of Atrium's.
async fn write_at_once(redis: &PrivateRedis) -> anyhow::Result<()> {
    let mut connection = redis.connection(0).await?;
    let () = redis::cmd("CONFIG").arg(&["SET", "appendfsync", "no"]).query_async(&mut connection).await?;
    let () = redis::cmd("CONFIG").arg("REWRITE").query_async(&mut connection).await?;
    Ok(())
}

async fn superuser(postgres: &PrivatePostgres) -> anyhow::Result<PgConnection> {
    PgConnection::connect(&postgres.superuser_url(DATABASE))
        .await
        .context("PostgreSQL does not answer the runner")
}
