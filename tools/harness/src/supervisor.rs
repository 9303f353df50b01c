//! Restarts processes that end.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use atrium_servers::postgres::PrivatePostgres;
use atrium_servers::redis::PrivateRedis;

use crate::screen::Screen;
use crate::service::Service;
use crate::stack::Stack;

/// The pause before the second attempt; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// A process that ran this long is not in a crash loop.
const HEALTHY: Duration = Duration::from_secs(10);

/// A process that is watched and restarted.
enum Member<'a> {
    Service(&'a Service),
    Postgres(&'a PrivatePostgres),
    Redis(&'a PrivateRedis),
}

impl Member<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Service(service) => service.name(),
            Self::Postgres(_) => "PostgreSQL",
            Self::Redis(_) => "Redis",
        }
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Service(service) => service.pid(),
            Self::Postgres(server) => server.pid(),
            Self::Redis(server) => server.pid(),
        }
    }

    async fn end(&self) -> ExitStatus {
        match self {
            Self::Service(service) => service.end().await,
            Self::Postgres(server) => server.end().await,
            Self::Redis(server) => server.end().await,
        }
    }

    async fn respawn(&self) -> anyhow::Result<()> {
        match self {
            Self::Service(service) => {
                service.respawn().await?;
                service.ready().await
            }
            Self::Postgres(server) => server.respawn().await,
            Self::Redis(server) => server.respawn().await,
        }
    }
}

/// Watches every process of the stack, forever. `changed` is called after each restart, when a process id has changed.
pub async fn watch(stack: &Stack, screen: &Screen, changed: impl Fn()) {
    let changed = &changed;
    tokio::join!(
        keep(Member::Service(&stack.api), screen, changed),
        keep(Member::Service(&stack.workers), screen, changed),
        async {
            if let Some(server) = &stack.postgres {
                keep(Member::Postgres(server), screen, changed).await;
            }
        },
        async {
            if let Some(server) = &stack.redis {
                keep(Member::Redis(server), screen, changed).await;
            }
        },
    );
}

async fn keep(member: Member<'_>, screen: &Screen, changed: &impl Fn()) {
    let mut pause = Duration::ZERO;
    loop {
        let (since, pid) = (Instant::now(), member.pid());
        let status = member.end().await;
        if since.elapsed() >= HEALTHY {
            pause = Duration::ZERO;
        }
        screen.alert(&format!("{}: process {pid} ended ({status}); restarting it", member.name()));
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).clamp(FIRST_PAUSE, MAX_PAUSE);
            match member.respawn().await {
                Ok(()) => break,
                Err(error) => screen.alert(&format!("{}: cannot start: {error:#}", member.name())),
            }
        }
        // First, so that a reader of the message finds the new process in the file of addresses.
        changed();
        screen.note(&format!("{}: running again, process {}", member.name(), member.pid()));
    }
}
