//! Carries out a fault while a process stands at the point, and heals it.

use std::time::Duration;

use anyhow::ensure;
use atrium_shared::streams::{GROUP, Inbound};
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;

use super::plan::{Fault, Plan};
use super::stage::Stage;
use crate::proxy::{Line, Proxy};
use crate::redis::Dump;
use crate::service::Service;

/// Longer than any lease, and than PostgreSQL lets a transaction wait for its next statement.
const PAST_EVERY_LEASE: Duration = Duration::from_millis(6_500);
/// Longer than clients of Redis wait for an answer.
const PAST_EVERY_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a process that was told to stop may take: its drain, and a little.
const GRACE: Duration = Duration::from_secs(12);
const SLOW: Duration = Duration::from_millis(40);

/// Does it, and returns when everything runs again and nobody is held. Half-open lines stay so until the round's
/// end.
pub(super) async fn interfere(
    stage: &Stage,
    plan: &Plan,
    victim: &Service,
    dump: Option<&Dump>,
) -> anyhow::Result<()> {
    let go_on = || stage.points.release();
    let half_open = if plan.deaf_client { Line::DeafClient } else { Line::DeafServer };
    match plan.fault {
        Fault::Kill => {
            victim.kill9().await;
            stage.start_again(victim).await?;
        }
        Fault::Stop => {
            victim.sigterm();
            tokio::time::sleep(plan.length).await;
            go_on();
            let ended = tokio::time::timeout(GRACE, victim.end()).await;
            ensure!(ended.is_ok(), "{} does not stop within its drain", victim.name());
            stage.start_again(victim).await?;
        }
        Fault::Pause => {
            victim.suspend();
            go_on();
            tokio::time::sleep(PAST_EVERY_LEASE).await;
            victim.resume();
        }
        Fault::Hold => tokio::time::sleep(PAST_EVERY_LEASE).await,
        Fault::Delay => tokio::time::sleep(plan.length).await,
        Fault::CutPostgres => broken(stage, &stage.postgres_proxy, Line::Cut, plan.length).await,
        Fault::HangPostgres => broken(stage, &stage.postgres_proxy, Line::Hung, plan.length * 2).await,
        Fault::SlowPostgres => broken(stage, &stage.postgres_proxy, Line::Slow(SLOW), plan.length).await,
        Fault::HalfOpenPostgres => stage.postgres_proxy.set(half_open),
        Fault::CutRedis => broken(stage, &stage.redis_proxy, Line::Cut, plan.length).await,
        Fault::HangRedis => broken(stage, &stage.redis_proxy, Line::Hung, plan.length * 2).await,
        Fault::SlowRedis => broken(stage, &stage.redis_proxy, Line::Slow(SLOW), plan.length).await,
        Fault::HalfOpenRedis => stage.redis_proxy.set(half_open),
        Fault::TerminateBackends => {
            sqlx::query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'atrium\\_%'",
            )
            .execute(&mut stage.superuser().await?)
            .await?;
        }
        Fault::RestartPostgres => {
            stage.postgres.stop().await;
            go_on();
            tokio::time::sleep(plan.length / 4).await;
            stage.postgres.start_again().await?;
        }
        Fault::KillPostgres => {
            stage.postgres.kill9().await;
            go_on();
            tokio::time::sleep(plan.length / 4).await;
            stage.postgres.start_again().await?;
        }
        Fault::PauseRedis => {
            stage.redis.suspend();
            go_on();
            tokio::time::sleep(PAST_EVERY_TIMEOUT).await;
            stage.redis.resume();
        }
        Fault::FlushRedis => stage.redis.flush_all().await?,
        Fault::RestartRedis => {
            stage.redis.kill9().await;
            go_on();
            tokio::time::sleep(plan.length / 4).await;
            stage.redis.start_again().await?;
        }
        Fault::RewindRedis => {
            if let Some(dump) = dump {
                stage.redis.rewind(dump).await?;
            }
        }
        Fault::FillRedis => {
            let mut redis = stage.redis().await?;
            limit_memory(&mut redis, 1).await?;
            go_on();
            tokio::time::sleep(plan.length).await;
            limit_memory(&mut redis, 0).await?;
        }
        Fault::DeleteStreams => {
            let streams: Vec<String> = Inbound::all().map(|stream| stream.to_string()).collect();
            let () = stage.redis().await?.del(streams).await?;
        }
        Fault::DeleteConsumers => delete_consumers(&mut stage.redis().await?).await?,
        Fault::SkipGroups => skip_groups(&mut stage.redis().await?).await?,
    }
    go_on();
    Ok(())
}

async fn broken(stage: &Stage, proxy: &Proxy, line: Line, length: Duration) {
    proxy.set(line);
    stage.points.release();
    tokio::time::sleep(length).await;
    proxy.set(Line::Open);
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
