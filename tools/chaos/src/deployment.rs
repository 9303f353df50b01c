//! What a runner works on: private PostgreSQL and Redis, Atrium's processes, and a proxy in front of each server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use atrium_contract::Contract;
use atrium_harness::client::Client;
use atrium_harness::operator;
use atrium_harness::service::{Kind, Service, Wiring};
use atrium_servers::folder::Folder;
use atrium_servers::ports::loopback;
use atrium_servers::postgres::{Durability, PrivatePostgres};
use atrium_servers::proxy::Proxy;
use atrium_servers::redis::PrivateRedis;
use atrium_servers::urls::Passwords;
use atrium_shared::crash_point::{CrashPoint, SOCKET};
use redis::aio::MultiplexedConnection;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::Mutex;

use crate::observer;
use crate::points::Points;

const DATABASE: &str = "atrium";
/// How long an orderly stop may take; longer than a task is held at a crash point.
const DRAIN_SECONDS: &str = "8";
/// Of each process, as `atrium_app`: all runners share one machine.
const CONNECTIONS: &str = "5";
/// A process that cannot start because the machine is busy or PostgreSQL is down is started again, as every
/// supervisor does.
const ATTEMPTS: u32 = 20;
/// How long the runner waits for Redis.
const RUNNER_WAITS: Duration = Duration::from_secs(15);
/// Deployments start one at a time.
static STARTING: Mutex<()> = Mutex::const_new(());

/// A running deployment.
pub(crate) struct Deployment {
    pub(crate) api: Service,
    pub(crate) workers: [Service; 2],
    pub(crate) redis: PrivateRedis,
    pub(crate) postgres: PrivatePostgres,
    pub(crate) redis_proxy: Proxy,
    pub(crate) postgres_proxy: Proxy,
    pub(crate) points: Points,
    wiring: Wiring,
    contract: Arc<Contract>,
    _folder: Arc<Folder>,
}

impl Deployment {
    /// Starts everything, healthy.
    pub(crate) async fn start(binaries: &std::path::Path) -> anyhow::Result<Self> {
        let alone = STARTING.lock().await;
        let folder = Arc::new(Folder::create()?);
        let (postgres, redis) = tokio::try_join!(
            PrivatePostgres::start_in(Arc::clone(&folder), Durability::Durable),
            PrivateRedis::start_in(Arc::clone(&folder)),
        )?;
        write_at_once(&redis).await?;
        let database = postgres.migrated(DATABASE, &Passwords::random()).await?;
        observer::install(&mut superuser(&postgres).await?).await?;
        let (keys, logs) = (folder.private("keys", None)?, folder.private("logs", None)?);
        atrium_harness::keys::generate(&keys, "chaos-1")?;
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
        let reason = "the crash matrix does not wait for a grace period";
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
        // One after the other: a process that is slow to connect gives up, and runners share the machine.
        let api = start("api", Kind::Api(loopback(0))).await?;
        let workers =
            [start("workers-0", Kind::Workers(None)).await?, start("workers-1", Kind::Workers(None)).await?];
        let contract = Arc::new(Contract::load()?);
        let deployment = Self {
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
        for service in deployment.services() {
            service.ready().await?;
        }
        drop(alone);
        Ok(deployment)
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = &Service> {
        std::iter::once(&self.api).chain(&self.workers)
    }

    /// The process with this id.
    pub(crate) fn service(&self, pid: u32) -> Option<&Service> {
        self.services().find(|service| service.pid() == pid)
    }

    /// Starts a process that has ended, as its supervisor would.
    pub(crate) async fn respawn(&self, service: &Service) -> anyhow::Result<()> {
        let mut attempt = 1;
        loop {
            let started = async {
                service.respawn().await?;
                service.ready().await
            };
            match started.await {
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                started => return started,
            }
        }
    }

    /// The processes that can reach a point.
    pub(crate) fn reaching(&self, point: CrashPoint) -> Vec<u32> {
        if point.name().starts_with("api.") {
            vec![self.api.pid()]
        } else {
            self.workers.iter().map(Service::pid).collect()
        }
    }

    /// A client that checks every answer against the contract.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.api.url()).with_contract(Arc::clone(&self.contract))
    }

    /// Without the proxy, and without the tenant wall.
    pub(crate) async fn superuser(&self) -> anyhow::Result<PgConnection> {
        superuser(&self.postgres).await
    }

    /// Past the proxy.
    pub(crate) async fn redis(&self) -> anyhow::Result<MultiplexedConnection> {
        // The redis crate's half a second is too short for a machine on which several runners work.
        let patient = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(RUNNER_WAITS))
            .set_response_timeout(Some(RUNNER_WAITS));
        let client = redis::Client::open(self.redis.url(0))?;
        Ok(client.get_multiplexed_async_connection_with_config(&patient).await?)
    }

    /// Sets the drill, or removes it.
    pub(crate) async fn drill(&self, step: Option<&str>) -> anyhow::Result<()> {
        let (key, reason) = ("saga.fail_step", "a round of the crash matrix");
        match step {
            Some(step) => operator::set_default(&self.wiring, key, &step.into(), reason).await,
            None => operator::unset_default(&self.wiring, key, reason).await,
        }
    }

    /// The ends of the logs.
    pub(crate) fn log_tail(&self, lines: usize) -> String {
        let tails = self.services().map(|service| {
            format!("──── {}: the last lines of its log\n{}", service.name(), service.log_tail(lines))
        });
        tails.collect::<Vec<_>>().join("\n")
    }

    /// Stops everything.
    pub(crate) async fn stop(self) {
        for service in self.services() {
            service.stop(Duration::ZERO).await;
        }
        self.redis.sigkill().await;
        self.postgres.stop().await;
    }
}

/// By default Redis postpones writes for up to two seconds while the disk is slow, and acknowledges them all the same.
/// A kill then loses acknowledged writes, which Atrium cannot prevent.
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
