//! All metrics, in one place, as dashboards and alerts may rely on them.
//!
//! One table defines the constant, name, kind, labels and meaning of each metric. `/metrics` serves the meanings as
//! descriptions, and tests compare `docs/signals.md` and the code that emits metrics with the table. Label values come
//! from short lists (a route's template, a topic, a reason) and are never ids.

use std::time::Duration;

use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// The definition of a metric.
#[derive(Debug)]
pub struct Metric {
    /// The name of its constant, through which the code emits it.
    pub constant: &'static str,
    /// Its name in `/metrics`.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Its description: one paragraph of Markdown.
    pub meaning: &'static str,
}

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A count that only grows while the process lives.
    Counter,
    /// A value that rises and falls.
    Gauge,
    /// A distribution, counted in buckets.
    Histogram,
}

impl Kind {
    /// The name, which is also the name of the macro that emits such a metric.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Defines a constant for each metric, and [`ALL`]. A metric's doc comment is its meaning.
macro_rules! metrics {
    ($($(#[doc = $meaning:literal])+ $constant:ident = $kind:ident $name:literal [$($label:literal),*];)*) => {
        $($(#[doc = $meaning])+ pub const $constant: &str = $name;)*

        /// Every metric.
        pub const ALL: &[Metric] = &[$(Metric {
            constant: stringify!($constant),
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            // Each line of a doc comment begins with a space.
            meaning: concat!($($meaning),+).trim_ascii_start(),
        }),*];
    };
}

metrics! {
    /// Requests answered. The label `route` is the template of the path, such as `/v1/orgs/{org}`.
    HTTP_REQUESTS = Counter "atrium_http_requests_total" ["method", "route", "status"];
    /// Time from the head of a request to the head of its response.
    HTTP_REQUEST_SECONDS = Histogram "atrium_http_request_duration_seconds" ["method", "route"];
    /// Connections of the public listener that are open now.
    HTTP_CONNECTIONS = Gauge "atrium_http_connections" [];
    /// Requests rejected by a rate limit or a quota.
    RATE_LIMITED = Counter "atrium_rate_limited_total" ["policy"];
    /// Limits decided by this process alone, because Redis did not answer in time.
    UNSHARED_LIMITS = Counter "atrium_unshared_limits_total" ["policy"];
    /// Whether this process shares its limits with the others: 1, or 0 while Redis is unavailable.
    LIMITS_SHARED = Gauge "atrium_limits_shared" [];
    /// Live API processes, as of the last heartbeat of this process. Their number divides the limits while Redis is
    /// unavailable.
    API_PROCESSES = Gauge "atrium_api_processes" [];
    /// Time that a request waited for a shared limit.
    SHARED_LIMIT_SECONDS = Histogram "atrium_shared_limit_duration_seconds" [];
    /// Event streams that are open now.
    SSE_STREAMS = Gauge "atrium_sse_streams" ["kind"];
    /// Events written to event streams.
    SSE_EVENTS = Counter "atrium_sse_events_total" ["kind"];
    /// Event streams that got a reset because events may be missing.
    SSE_RESETS = Counter "atrium_sse_resets_total" ["reason"];
    /// Event streams resumed, by where the missed events came from: ring, redis, or reset where they may be
    /// missing.
    SSE_RESUMES = Counter "atrium_sse_resumes_total" ["source"];
    /// Messages published by the relay.
    OUTBOX_PUBLISHED = Counter "atrium_outbox_published_total" ["topic"];
    /// Time from when a message became due to its publication.
    OUTBOX_LAG_SECONDS = Histogram "atrium_outbox_publish_lag_seconds" ["topic"];
    /// Messages that Redis had lost, published again.
    OUTBOX_REPUBLISHED = Counter "atrium_outbox_republished_total" [];
    /// Messages that are due and not published. The owner of a shard reports it.
    OUTBOX_BACKLOG = Gauge "atrium_outbox_backlog" ["shard"];
    /// Outcomes of deliveries: done; duplicate; postponed (the message is delivered again later); retry (left for
    /// another delivery); handed_over (to another process, on stopping); lost (to another process, which claimed
    /// it); dead.
    MESSAGES = Counter "atrium_messages_total" ["topic", "outcome"];
    /// Entries that the group has not received yet.
    STREAM_BACKLOG = Gauge "atrium_stream_backlog" ["stream", "group"];
    /// 1 for one of `exact`, `at_least` (more than 2,000 entries on either side), `unknown` (no group, or no
    /// Redis).
    STREAM_BACKLOG_STATE = Gauge "atrium_stream_backlog_state" ["stream", "group", "state"];
    /// Entries delivered to consumers and not acknowledged.
    STREAM_PENDING = Gauge "atrium_stream_pending" ["stream", "group"];
    /// Age of the oldest unfinished entry; 0 if there is none.
    STREAM_OLDEST_SECONDS = Gauge "atrium_stream_oldest_age_seconds" ["stream", "group"];
    /// Entries in the stream of dead letters.
    STREAM_DEAD_LETTERS = Gauge "atrium_stream_dead_letters" ["stream"];
    /// How often a group had skipped entries and was set back to them.
    STREAM_SKIPS = Counter "atrium_stream_skips_total" ["stream"];
    /// Time since the oldest message that is due and not published became due; 0 if there is none.
    OUTBOX_OLDEST_UNPUBLISHED_SECONDS = Gauge "atrium_outbox_oldest_unpublished_seconds" [];
    /// Messages published and not consumed, up to 10,000.
    OUTBOX_UNCONSUMED = Gauge "atrium_outbox_unconsumed" [];
    /// Time since the oldest message that is published and not consumed became due; 0 if there is none.
    OUTBOX_OLDEST_UNCONSUMED_SECONDS = Gauge "atrium_outbox_oldest_unconsumed_seconds" [];
    /// Dead letters, counted by their rows.
    DEAD_LETTERS = Gauge "atrium_dead_letters" ["topic"];
    /// Unfinished sagas.
    SAGAS = Gauge "atrium_sagas" ["saga", "status"];
    /// How long the oldest unfinished saga has had its status.
    SAGA_OLDEST_SECONDS = Gauge "atrium_saga_oldest_age_seconds" ["saga", "status"];
    /// Steps of sagas that ran.
    SAGA_STEPS = Counter "atrium_saga_steps_total" ["saga", "step", "outcome"];
    /// Sagas that ended, by their final status.
    SAGAS_FINISHED = Counter "atrium_sagas_finished_total" ["saga", "status"];
    /// Chat events published to the live streams.
    CHAT_EVENTS = Counter "atrium_chat_events_total" ["event"];
    /// Time from the acceptance of a chat action to its publication.
    CHAT_PUBLISH_SECONDS = Histogram "atrium_chat_publish_duration_seconds" [];
    /// Shards that this process owns.
    SHARDS_OWNED = Gauge "atrium_shards_owned" ["role"];
    /// Shards that this process should own; 0 while it cannot reach PostgreSQL or Redis.
    SHARDS_DUE = Gauge "atrium_shards_due" ["role"];
    /// Time from a change of configuration to its application in this process.
    CONFIG_APPLY_SECONDS = Histogram "atrium_config_apply_duration_seconds" [];
    /// The revision of the default configuration that this process applies.
    CONFIG_PLATFORM_REVISION = Gauge "atrium_config_platform_revision" [];
    /// Snapshots that could not be applied; the last good one stays in use.
    CONFIG_APPLY_FAILURES = Counter "atrium_config_apply_failures_total" [];
    /// Access tokens rejected because they were revoked.
    REVOKED_TOKENS_REFUSED = Counter "atrium_revoked_tokens_refused_total" [];
    /// Signing keys that this process knows.
    SIGNING_KEYS = Gauge "atrium_signing_keys" [];
    /// Failed reads of a signing key or of the folder; the keys that were read before stay in use.
    SIGNING_KEY_FAILURES = Counter "atrium_signing_key_failures_total" [];
    /// Refresh tokens presented: rotated, repeated (within 30 seconds), reused (later: it was copied), refused.
    REFRESHES = Counter "atrium_refreshes_total" ["outcome"];
}

/// In seconds, from half a millisecond, typical of the live path, to ten seconds, after which clients give up.
const DURATION_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Installs the recorder and describes each metric.
///
/// # Errors
/// When a recorder is installed already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    // Without buckets the exporter renders a summary, which cannot be aggregated over processes.
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), DURATION_BUCKETS)?
        .install_recorder()?;
    for metric in ALL {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.meaning),
            Kind::Gauge => describe_gauge!(metric.name, metric.meaning),
            Kind::Histogram => describe_histogram!(metric.name, metric.meaning),
        }
    }
    Ok(handle)
}

/// Bounds the recorder's memory. The exporter does this itself only when it serves `/metrics`.
pub async fn upkeep(handle: PrometheusHandle, stop: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(Duration::from_secs(5));
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        handle.run_upkeep();
    }
    Ok(())
}
