//! Injects a fault while a process is held at the crash point, and heals it.

use std::time::Duration;

use anyhow::ensure;
use atrium_harness::service::Service;
use atrium_servers::proxy::{Link, Proxy};
use atrium_servers::redis::Dump;
use atrium_shared::streams::{GROUP, Inbound};
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;

use crate::deployment::Deployment;
use crate::plan::{Fault, Plan};

/// Longer than any lease, and than PostgreSQL lets a transaction wait for its next statement.
const PAST_EVERY_LEASE: Duration = Duration::from_millis(6_500);
/// Longer than clients of Redis wait for an answer.
const PAST_EVERY_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a process may take to stop: its drain, and a little more.
const GRACE: Duration = Duration::from_secs(12);
const SLOW: Duration = Duration::from_millis(40);

/// Injects the fault, and returns when everything runs again and no process is held. Half-open connections stay so
/// until the round's end.
pub(crate) async fn inject(
    deployment: &Deployment,
    plan: &Plan,
    victim: &Service,
    dump: Option<&Dump>,
) -> anyhow::Result<()> {
    let release = || deployment.points.release();
    let half_open = if plan.client_unaware { Link::ClientUnaware } else { Link::ServerUnaware };
    match plan.fault {
        Fault::Kill => {
            victim.sigkill().await;
            deployment.respawn(victim).await?;
        }
        Fault::Stop => {
            victim.sigterm();
            tokio::time::sleep(plan.length).await;
            release();
            let ended = tokio::time::timeout(GRACE, victim.end()).await;
            ensure!(ended.is_ok(), "{} does not stop within its drain", victim.name());
            deployment.respawn(victim).await?;
        }
        Fault::Pause => {
            victim.suspend();
            release();
            tokio::time::sleep(PAST_EVERY_LEASE).await;
            victim.resume();
        }
        Fault::Hold => tokio::time::sleep(PAST_EVERY_LEASE).await,
        Fault::Delay => tokio::time::sleep(plan.length).await,
        Fault::CutPostgres => break_for(deployment, &deployment.postgres_proxy, Link::Cut, plan.length).await,
        Fault::HangPostgres => {
            break_for(deployment, &deployment.postgres_proxy, Link::Hung, plan.length * 2).await;
        }
        Fault::SlowPostgres => {
            break_for(deployment, &deployment.postgres_proxy, Link::Slow(SLOW), plan.length).await;
        }
        Fault::HalfOpenPostgres => deployment.postgres_proxy.set(half_open),
        Fault::CutRedis => break_for(deployment, &deployment.redis_proxy, Link::Cut, plan.length).await,
        Fault::HangRedis => break_for(deployment, &deployment.redis_proxy, Link::Hung, plan.length * 2).await,
        Fault::SlowRedis => {
            break_for(deployment, &deployment.redis_proxy, Link::Slow(SLOW), plan.length).await;
        }
        Fault::HalfOpenRedis => deployment.redis_proxy.set(half_open),
        Fault::TerminateBackends => {
            sqlx::query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'atrium\\_%'",
            )
            .execute(&mut deployment.superuser().await?)
            .await?;
        }
        Fault::RestartPostgres => {
            deployment.postgres.stop().await;
            release();
            tokio::time::sleep(plan.length / 4).await;
            deployment.postgres.respawn().await?;
        }
        Fault::KillPostgres => {
            deployment.postgres.sigkill().await;
            release();
            tokio::time::sleep(plan.length / 4).await;
            deployment.postgres.respawn().await?;
        }
        Fault::PauseRedis => {
            deployment.redis.suspend();
            release();
            tokio::time::sleep(PAST_EVERY_TIMEOUT).await;
            deployment.redis.resume();
        }
        Fault::FlushRedis => deployment.redis.flush_all().await?,
        Fault::RestartRedis => {
            deployment.redis.sigkill().await;
            release();
            tokio::time::sleep(plan.length / 4).await;
            deployment.redis.respawn().await?;
        }
        Fault::RewindRedis => {
            if let Some(dump) = dump {
                deployment.redis.rewind(dump).await?;
            }
        }
        Fault::FillRedis => {
            let mut redis = deployment.redis().await?;
            limit_memory(&mut redis, 1).await?;
            release();
            tokio::time::sleep(plan.length).await;
            limit_memory(&mut redis, 0).await?;
        }
        Fault::DeleteStreams => {
            let streams: Vec<String> = Inbound::all().map(|stream| stream.to_string()).collect();
            let () = deployment.redis().await?.del(streams).await?;
        }
        Fault::DeleteConsumers => delete_consumers(&mut deployment.redis().await?).await?,
        Fault::SkipGroups => skip_groups(&mut deployment.redis().await?).await?,
    }
    release();
    Ok(())
}

/// Breaks the connections of a proxy for a while.
async fn break_for(deployment: &Deployment, proxy: &Proxy, state: Link, length: Duration) {
    proxy.set(state);
    deployment.points.release();
    tokio::time::sleep(length).await;
    proxy.set(Link::Open);
}

async fn limit_memory(redis: &mut MultiplexedConnection, bytes: u64) -> anyhow::Result<()> {
    let () = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).query_async(redis).await?;
    Ok(())
}

async fn delete_consumers(redis: &mut MultiplexedConnection) -> anyhow::Result<()> {
    for stream in Inbound::all().map(|stream| stream.to_string()) {
        let consumers: redis::streams::StreamInfoConsumersReply =
            redis.xinfo_consumers(&stream, GROUP).await?;
        for consumer in consumers.consumers {
            let () = redis.xgroup_delconsumer(&stream, GROUP, consumer.name).await?;
        }
    }
    Ok(())
}

async fn skip_groups(redis: &mut MultiplexedConnection) -> anyhow::Result<()> {
    for stream in Inbound::all().map(|stream| stream.to_string()) {
        redis::pipe()
            .atomic()
            .xgroup_destroy(&stream, GROUP)
            .ignore()
            .xgroup_create_mkstream(&stream, GROUP, "$")
            .ignore()
            .query_async::<()>(redis)
            .await?;
    }
    Ok(())
}
