//! A chat window with its stream: each pressed action has to appear once on every stream.

use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use atrium_harness::client::Follower;
use atrium_harness::guest::{Guest, Window};
use atrium_harness::screen::readable;

use super::step::TIMEOUT;

/// The reasons for a `reset` that the tour tolerates: Redis was restarted, which lost the short history of live events.
/// The action was counted all the same: it is pressed again, and the counters are checked later.
const REDIS_RESTARTED: [&str; 2] = ["history_lost", "gap"];
/// How long an event may still come after such a reset.
const AFTER_RESET: Duration = Duration::from_secs(2);
/// How often an action is pressed at most.
const ATTEMPTS: i64 = 3;

/// An open window with its stream, and the ids of the actions it showed.
pub(super) struct Watched {
    pub(super) window: Window,
    pub(super) stream: Follower,
    seen: HashSet<String>,
}

/// A press that every window showed.
pub(super) struct Press<const N: usize> {
    /// How long each window took to show it.
    pub(super) took: [Duration; N],
    /// How often it was accepted until then: once, unless a stream may have missed it.
    pub(super) times: i64,
}

impl<const N: usize> fmt::Display for Press<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.took.map(readable).join(" and "))?;
        if self.times > 1 {
            write!(f, " (pressed {} times: Redis lost its history)", self.times)?;
        }
        Ok(())
    }
}

/// The outcome of waiting for an action.
enum Shown {
    At(Instant),
    /// The stream reported a possible loss, and the action did not appear.
    Missed,
}

/// Opens a window and its stream.
pub(super) async fn watched(guest: &Guest, org: &str, project: &str) -> anyhow::Result<Watched> {
    let window = guest.open_chat(org, project).await?;
    let mut stream = guest.watch(&window);
    stream.connected(TIMEOUT).await?;
    Ok(Watched { window, stream, seen: HashSet::new() })
}

/// Presses in the first window and waits until all show it.
pub(super) async fn press<const N: usize>(
    guest: &Guest,
    action: &str,
    mut windows: [&mut Watched; N],
) -> anyhow::Result<Press<N>> {
    let window = windows[0].window.clone();
    for times in 1..=ATTEMPTS {
        let (pressed, id) = accepted(guest, &window, action).await?;
        let (mut took, mut missed) = ([Duration::ZERO; N], false);
        for (watched, took) in windows.iter_mut().zip(&mut took) {
            match watched.shows(&id, action).await? {
                Shown::At(at) => *took = at.saturating_duration_since(pressed),
                Shown::Missed => missed = true,
            }
        }
        if !missed {
            return Ok(Press { took, times });
        }
    }
    bail!("expected `{action}` on every stream, got a `reset` instead, {ATTEMPTS} times");
}

/// Presses until it is accepted; returns when the accepted attempt began, and the action's id.
async fn accepted(guest: &Guest, window: &Window, action: &str) -> anyhow::Result<(Instant, String)> {
    let start = Instant::now();
    loop {
        let pressed = Instant::now();
        let pause = match guest.pressing(window, action).send().await {
            Ok(reply) if reply.code() == 202 => return Ok((pressed, reply.at("/id"))),
            Ok(reply) if matches!(reply.code(), 429 | 503) && start.elapsed() < TIMEOUT => {
                let seconds = reply.header("retry-after").and_then(|text| text.parse().ok());
                Duration::from_secs(seconds.unwrap_or(1))
            }
            Ok(reply) => bail!(reply.unexpected("202")),
            Err(_) if start.elapsed() < TIMEOUT => Duration::from_millis(200),
            Err(error) => bail!(error),
        };
        tokio::time::sleep(pause).await;
    }
}

impl Watched {
    /// Waits until the stream shows the action with this id, once.
    async fn shows(&mut self, id: &str, action: &str) -> anyhow::Result<Shown> {
        let (mut deadline, mut reset) = (Instant::now() + TIMEOUT, false);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = match self.stream.next(left).await {
                Err(_) if reset && Instant::now() >= deadline => return Ok(Shown::Missed),
                next => next
                    .with_context(|| format!("expected `{action}` ({id})"))?
                    .with_context(|| format!("expected `{action}` ({id}), but the stream ended"))?,
            };
            match event.event.as_str() {
                "chat.action" => {
                    let data = event.json();
                    let shown = data["id"].as_str().unwrap_or_default().to_owned();
                    ensure!(
                        self.seen.insert(shown.clone()),
                        "expected each action once, got it twice: {data}"
                    );
                    if shown == id {
                        ensure!(data["action"] == action, "expected `{action}`, got {data}");
                        return Ok(Shown::At(event.at));
                    }
                }
                "reset"
                    if event.json()["reason"].as_str().is_some_and(|why| REDIS_RESTARTED.contains(&why)) =>
                {
                    reset = true;
                    deadline = deadline.min(Instant::now() + AFTER_RESET);
                }
                "drain" | "token-expiring" => {}
                other => bail!("expected `{action}`, got `{other}` {}", event.data),
            }
        }
    }
}
