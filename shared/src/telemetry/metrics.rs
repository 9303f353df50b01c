//! The names of all metrics, in one place: what a dashboard or an alert may rely on.
//!
//! Labels hold names from a short list (a route's template, a topic, a reason), never an id.

use std::time::Duration;

use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// Requests answered; labels `method`, `route` (template), `status`.
pub const HTTP_REQUESTS: &str = "atrium_http_requests_total";
/// Seconds from a request's head to its answer's head; labels `method`, `route`.
pub const HTTP_REQUEST_SECONDS: &str = "atrium_http_request_duration_seconds";
/// Connections open now.
pub const HTTP_CONNECTIONS: &str = "atrium_http_connections";
/// Requests refused by a rate limit; label `policy`.
pub const RATE_LIMITED: &str = "atrium_rate_limited_total";
/// Limits decided by this process alone, because Redis did not answer in time; label `policy`.
pub const UNSHARED_LIMITS: &str = "atrium_unshared_limits_total";
/// Whether this process shares its limits with the others: 1, or 0 while Redis is away.
pub const LIMITS_SHARED: &str = "atrium_limits_shared";
/// API processes that live, as this one was told last; their number divides the limits while Redis is away.
pub const API_PROCESSES: &str = "atrium_api_processes";
/// Seconds that a request waited for a shared limit.
pub const SHARED_LIMIT_SECONDS: &str = "atrium_shared_limit_duration_seconds";
/// Event streams open now; label `kind`.
pub const SSE_STREAMS: &str = "atrium_sse_streams";
/// Events written to streams; label `kind`.
pub const SSE_EVENTS: &str = "atrium_sse_events_total";
/// Streams told that they missed something; label `reason`.
pub const SSE_RESETS: &str = "atrium_sse_resets_total";
/// Streams resumed; label `source` (ring, redis, reset).
pub const SSE_RESUMES: &str = "atrium_sse_resumes_total";
/// Messages published by the relay; label `topic`.
pub const OUTBOX_PUBLISHED: &str = "atrium_outbox_published_total";
/// Seconds from a message's commit to its publication; label `topic`.
pub const OUTBOX_LAG_SECONDS: &str = "atrium_outbox_publish_lag_seconds";
/// Messages published again because Redis had lost them. More than none is worth an alarm: nothing was lost, but
/// Redis was.
pub const OUTBOX_REPUBLISHED: &str = "atrium_outbox_republished_total";
/// Messages due and not published; label `shard`. Each shard is reported by its owner.
pub const OUTBOX_BACKLOG: &str = "atrium_outbox_backlog";
/// Messages that came to an end in this process; labels `topic`, `outcome`: done; duplicate; postponed (it asked to
/// come again later); retry (left for another delivery); handed_over (to another process, on stopping); lost (to
/// another process, which has claimed it); dead.
pub const MESSAGES: &str = "atrium_messages_total";
/// What a group has not been given yet; labels `stream`, `group`. NaN while unknown. Every process of the workers says
/// the same, so take the maximum, not the sum.
pub const STREAM_BACKLOG: &str = "atrium_stream_backlog";
/// What the backlog's number is, 1 for one of them; labels `stream`, `group`, `state`: exact; at_least; unknown (there
/// is no group, or Redis is away).
pub const STREAM_BACKLOG_STATE: &str = "atrium_stream_backlog_state";
/// Entries given to a consumer and not ended; labels `stream`, `group`. NaN while unknown.
pub const STREAM_PENDING: &str = "atrium_stream_pending";
/// Seconds since the oldest entry was added that is not ended; labels `stream`, `group`. 0 when there is none, NaN
/// while unknown.
pub const STREAM_OLDEST_SECONDS: &str = "atrium_stream_oldest_age_seconds";
/// Entries in the stream of dead letters; label `stream`. NaN while unknown.
pub const STREAM_DEAD_LETTERS: &str = "atrium_stream_dead_letters";
/// Times that a group had skipped entries and went back to them; label `stream`.
pub const STREAM_SKIPS: &str = "atrium_stream_skips_total";
/// Seconds for which the oldest message has been due and not published; 0 when none is. NaN while unknown.
pub const OUTBOX_OLDEST_UNPUBLISHED_SECONDS: &str = "atrium_outbox_oldest_unpublished_seconds";
/// Messages published and not consumed, counted up to 10,000. NaN while unknown.
pub const OUTBOX_UNCONSUMED: &str = "atrium_outbox_unconsumed";
/// Seconds for which the oldest of them has been due. NaN while unknown.
pub const OUTBOX_OLDEST_UNCONSUMED_SECONDS: &str = "atrium_outbox_oldest_unconsumed_seconds";
/// Messages given up, which wait for an operator; label `topic`. NaN while unknown.
pub const DEAD_LETTERS: &str = "atrium_dead_letters";
/// Sagas that have not ended; labels `saga`, `status`. NaN while unknown.
pub const SAGAS: &str = "atrium_sagas";
/// Seconds for which the oldest of them has had its status; labels `saga`, `status`. NaN while unknown.
pub const SAGA_OLDEST_SECONDS: &str = "atrium_saga_oldest_age_seconds";
/// Steps of sagas; labels `saga`, `step`, `outcome`.
pub const SAGA_STEPS: &str = "atrium_saga_steps_total";
/// Sagas that ended; labels `saga`, `status`.
pub const SAGAS_FINISHED: &str = "atrium_sagas_finished_total";
/// Chat events published to the live streams; label `event`.
pub const CHAT_EVENTS: &str = "atrium_chat_events_total";
/// Seconds from a chat action's acceptance to its publication.
pub const CHAT_PUBLISH_SECONDS: &str = "atrium_chat_publish_duration_seconds";
/// Shards this process owns; label `role` (relay, chat).
pub const SHARDS_OWNED: &str = "atrium_shards_owned";
/// Shards this process should own; label `role`. 0: it has not reached PostgreSQL and Redis for a while.
pub const SHARDS_DUE: &str = "atrium_shards_due";
/// Seconds from a configuration change to its application in this process.
pub const CONFIG_APPLY_SECONDS: &str = "atrium_config_apply_duration_seconds";
/// The revision of the platform's configuration that this process applies.
pub const CONFIG_PLATFORM_REVISION: &str = "atrium_config_platform_revision";
/// Snapshots that could not be applied; the last good one stays in place.
pub const CONFIG_APPLY_FAILURES: &str = "atrium_config_apply_failures_total";
/// Tokens refused because they were revoked.
pub const REVOKED_TOKENS_REFUSED: &str = "atrium_revoked_tokens_refused_total";
/// Signing keys that this process knows.
pub const SIGNING_KEYS: &str = "atrium_signing_keys";
/// Readings of a signing key, or of the folder, that failed; the last good ones stay in place.
pub const SIGNING_KEY_FAILURES: &str = "atrium_signing_key_failures_total";
/// Refresh tokens presented; label `outcome` (rotated, repeated, reused, refused). One that is reused was copied.
pub const REFRESHES: &str = "atrium_refreshes_total";

/// Seconds; from half a millisecond, where the live path works, to the ten seconds after which nobody waits.
const DURATION_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Installs the recorder and says what each metric means.
///
/// # Errors
/// When a recorder is installed already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    // Without buckets a histogram becomes a summary, which cannot be added up over processes.
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), DURATION_BUCKETS)?
        .install_recorder()?;
    describe();
    Ok(handle)
}

/// Keeps the recorder's memory bounded; the exporter leaves that to us when we serve the text ourselves.
pub async fn upkeep(handle: PrometheusHandle, stop: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(Duration::from_secs(5));
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        handle.run_upkeep();
    }
    Ok(())
}

fn describe() {
    describe_counter!(HTTP_REQUESTS, "Requests answered.");
    describe_histogram!(HTTP_REQUEST_SECONDS, "Seconds from a request's head to its answer's head.");
    describe_gauge!(HTTP_CONNECTIONS, "Connections open now.");
    describe_counter!(RATE_LIMITED, "Requests refused by a rate limit.");
    describe_counter!(UNSHARED_LIMITS, "Limits decided by one process alone.");
    describe_gauge!(LIMITS_SHARED, "Whether limits are shared with the other processes.");
    describe_gauge!(API_PROCESSES, "API processes that live, as this one was told last.");
    describe_histogram!(SHARED_LIMIT_SECONDS, "Seconds that a request waited for a shared limit.");
    describe_gauge!(SSE_STREAMS, "Event streams open now.");
    describe_counter!(SSE_EVENTS, "Events written to streams.");
    describe_counter!(SSE_RESETS, "Streams told that they missed something.");
    describe_counter!(SSE_RESUMES, "Streams resumed, by where the missed events came from.");
    describe_counter!(OUTBOX_PUBLISHED, "Messages published by the relay.");
    describe_histogram!(OUTBOX_LAG_SECONDS, "Seconds from a message's commit to its publication.");
    describe_counter!(OUTBOX_REPUBLISHED, "Messages published again because Redis had lost them.");
    describe_gauge!(OUTBOX_BACKLOG, "Messages due and not published.");
    describe_counter!(MESSAGES, "Messages handled by consumers.");
    describe_gauge!(STREAM_BACKLOG, "Entries that a group has not been given yet; NaN while unknown.");
    describe_gauge!(STREAM_BACKLOG_STATE, "What the backlog's number is: exact, at_least or unknown.");
    describe_gauge!(STREAM_PENDING, "Entries given to a consumer and not ended; NaN while unknown.");
    describe_gauge!(STREAM_OLDEST_SECONDS, "Seconds since the oldest entry was added that is not ended.");
    describe_gauge!(STREAM_DEAD_LETTERS, "Entries in the stream of dead letters.");
    describe_counter!(STREAM_SKIPS, "Times that a group had skipped entries and went back to them.");
    describe_gauge!(OUTBOX_OLDEST_UNPUBLISHED_SECONDS, "Seconds that the oldest message has been due.");
    describe_gauge!(OUTBOX_UNCONSUMED, "Messages published and not consumed, up to 10,000.");
    describe_gauge!(OUTBOX_OLDEST_UNCONSUMED_SECONDS, "Seconds that the oldest of them has been due.");
    describe_gauge!(DEAD_LETTERS, "Messages given up, which wait for an operator.");
    describe_gauge!(SAGAS, "Sagas that have not ended, by status.");
    describe_gauge!(SAGA_OLDEST_SECONDS, "Seconds that the oldest saga has had its status.");
    describe_counter!(SAGA_STEPS, "Steps of sagas, by outcome.");
    describe_counter!(SAGAS_FINISHED, "Sagas that ended, by status.");
    describe_counter!(CHAT_EVENTS, "Chat events published to the live streams.");
    describe_histogram!(CHAT_PUBLISH_SECONDS, "Seconds from a chat action's acceptance to its publication.");
    describe_gauge!(SHARDS_OWNED, "Shards this process owns, by role.");
    describe_gauge!(SHARDS_DUE, "Shards this process should own, by role.");
    describe_histogram!(CONFIG_APPLY_SECONDS, "Seconds from a configuration change to its application here.");
    describe_gauge!(CONFIG_PLATFORM_REVISION, "The revision of the platform's configuration applied here.");
    describe_counter!(CONFIG_APPLY_FAILURES, "Snapshots that could not be applied.");
    describe_counter!(REVOKED_TOKENS_REFUSED, "Tokens refused because they were revoked.");
    describe_gauge!(SIGNING_KEYS, "Signing keys that this process knows.");
    describe_counter!(SIGNING_KEY_FAILURES, "Signing keys that could not be read; the last good ones stay.");
    describe_counter!(REFRESHES, "Refresh tokens presented, by what came of it.");
}
