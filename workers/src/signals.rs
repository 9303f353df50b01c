//! Signals: the state of the streams, the outbox and the sagas, as metrics.
//!
//! Every worker process measures the same shared state and reports the same values, so an alert takes the maximum. A
//! value that cannot be measured is NaN, never 0. Signals do not affect readiness, because a short outage of the
//! database would then take all processes out of service at the same time.

use std::{collections::BTreeMap, time::Duration};

use atrium_shared::{
    db::{RunningSagas, Watcher, in_time},
    lifecycle::Shutdown,
    streams::{Backlog, GROUP, Inbound, Redis, StreamSignals},
    telemetry::metrics::{
        DEAD_LETTERS, OUTBOX_OLDEST_UNCONSUMED_SECONDS, OUTBOX_OLDEST_UNPUBLISHED_SECONDS, OUTBOX_UNCONSUMED,
        SAGA_OLDEST_SECONDS, SAGAS, STREAM_BACKLOG, STREAM_BACKLOG_STATE, STREAM_DEAD_LETTERS,
        STREAM_OLDEST_SECONDS, STREAM_PENDING,
    },
};
use metrics::gauge;
use sqlx::PgPool;

const INTERVAL: Duration = Duration::from_secs(5);
/// Counting stops at this number, because a larger one tells an operator nothing new.
const COUNT_LIMIT: i64 = 10_000;
const TOPICS: [&str; 3] = ["saga", "config", "chat"];

pub(crate) fn spawn(outbox: &PgPool, watcher: &Watcher, redis: &Redis, shutdown: &Shutdown) {
    let (outbox, watcher, redis) = (outbox.clone(), watcher.clone(), redis.clone());
    let stop = shutdown.draining().clone();
    shutdown.spawn_critical("signals", async move {
        let mut sagas = BTreeMap::new();
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            for stream in Inbound::all() {
                let signals = StreamSignals::read(&redis, stream).await.ok();
                report_stream(stream, signals.as_ref());
            }
            report_outbox(in_time(OutboxSignals::read(&outbox)).await.ok().as_ref());
            report_sagas(&mut sagas, watcher.running_sagas().await.ok());
        }
        Ok(())
    });
}

fn report_stream(stream: Inbound, signals: Option<&StreamSignals>) {
    let (backlog, state) = match signals.map(|signals| signals.backlog) {
        Some(Backlog::Exactly(count)) => (count as f64, "exact"),
        Some(Backlog::AtLeast(count)) => (count as f64, "at_least"),
        Some(Backlog::Unknown) | None => (f64::NAN, "unknown"),
    };
    let name = stream.name();
    gauge!(STREAM_BACKLOG, "stream" => name.clone(), "group" => GROUP).set(backlog);
    for each in ["exact", "at_least", "unknown"] {
        let value = if each == state { 1.0 } else { 0.0 };
        gauge!(STREAM_BACKLOG_STATE, "stream" => name.clone(), "group" => GROUP, "state" => each).set(value);
    }
    let pending = signals.and_then(|signals| signals.pending).map_or(f64::NAN, |count| count as f64);
    gauge!(STREAM_PENDING, "stream" => name.clone(), "group" => GROUP).set(pending);
    let oldest = signals.and_then(|signals| signals.oldest_ms).map_or(f64::NAN, |ms| ms as f64 / 1000.0);
    gauge!(STREAM_OLDEST_SECONDS, "stream" => name.clone(), "group" => GROUP).set(oldest);
    let dead = signals.map_or(f64::NAN, |signals| signals.dead_letters as f64);
    gauge!(STREAM_DEAD_LETTERS, "stream" => name).set(dead);
}

struct OutboxSignals {
    oldest_unpublished: f64,
    unconsumed: i64,
    oldest_unconsumed: f64,
    dead: Vec<(String, i64)>,
}

impl OutboxSignals {
    async fn read(outbox: &PgPool) -> Result<Self, sqlx::Error> {
        // Uses the partial indexes of unfinished messages, so the cost is bounded by LIMIT, not by the size of the table.
        let waiting = sqlx::query!(
            r#"SELECT COALESCE(EXTRACT(EPOCH FROM clock_timestamp() - LEAST(
                        (SELECT created_at FROM outbox
                          WHERE published_at IS NULL AND consumed_at IS NULL AND dead_at IS NULL AND available_at IS NULL
                          ORDER BY id LIMIT 1),
                        (SELECT available_at FROM outbox
                          WHERE published_at IS NULL AND consumed_at IS NULL AND dead_at IS NULL
                            AND available_at <= clock_timestamp()
                          ORDER BY available_at LIMIT 1))), 0)::float8 AS "oldest_unpublished!",
                    count(*) AS "unconsumed!",
                    COALESCE(EXTRACT(EPOCH FROM clock_timestamp() - min(due_at)), 0)::float8 AS "oldest_unconsumed!"
               FROM (SELECT COALESCE(available_at, created_at) AS due_at FROM outbox
                      WHERE published_at IS NOT NULL AND consumed_at IS NULL AND dead_at IS NULL
                      ORDER BY published_at LIMIT $1) AS unconsumed"#,
            COUNT_LIMIT
        )
        .fetch_one(outbox)
        .await?;
        let dead = sqlx::query!(
            r#"SELECT topic, count(*) AS "count!" FROM outbox
              WHERE dead_at IS NOT NULL AND consumed_at IS NULL GROUP BY topic"#
        )
        .fetch_all(outbox)
        .await?;
        Ok(Self {
            oldest_unpublished: waiting.oldest_unpublished,
            unconsumed: waiting.unconsumed,
            oldest_unconsumed: waiting.oldest_unconsumed,
            dead: dead.into_iter().map(|letters| (letters.topic, letters.count)).collect(),
        })
    }

    fn dead_of(&self, topic: &str) -> i64 {
        self.dead.iter().find(|(name, _)| name == topic).map_or(0, |(_, count)| *count)
    }
}

fn report_outbox(signals: Option<&OutboxSignals>) {
    let or_nan = |value: Option<f64>| value.unwrap_or(f64::NAN);
    gauge!(OUTBOX_OLDEST_UNPUBLISHED_SECONDS).set(or_nan(signals.map(|signals| signals.oldest_unpublished)));
    gauge!(OUTBOX_UNCONSUMED).set(or_nan(signals.map(|signals| signals.unconsumed as f64)));
    gauge!(OUTBOX_OLDEST_UNCONSUMED_SECONDS).set(or_nan(signals.map(|signals| signals.oldest_unconsumed)));
    for topic in TOPICS {
        gauge!(DEAD_LETTERS, "topic" => topic)
            .set(or_nan(signals.map(|signals| signals.dead_of(topic) as f64)));
    }
}

/// `reported` contains the values reported before, so that a series that ended is set to 0.
fn report_sagas(reported: &mut BTreeMap<(String, String), (f64, f64)>, running: Option<Vec<RunningSagas>>) {
    let default = if running.is_some() { 0.0 } else { f64::NAN };
    reported.values_mut().for_each(|signals| *signals = (default, default));
    for sagas in running.unwrap_or_default() {
        reported.insert((sagas.kind, sagas.status), (sagas.count as f64, sagas.oldest_seconds.max(0.0)));
    }
    for ((kind, status), (count, oldest)) in reported {
        gauge!(SAGAS, "saga" => kind.clone(), "status" => status.clone()).set(*count);
        gauge!(SAGA_OLDEST_SECONDS, "saga" => kind.clone(), "status" => status.clone()).set(*oldest);
    }
}
