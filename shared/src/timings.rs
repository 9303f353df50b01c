//! Durations that depend on each other, with compile-time checks of their relations.
//!
//! A duration that no other depends on is defined where it is used.

use std::time::Duration;

/// PostgreSQL's statement timeout for `atrium_app`. The migrations set it on the role; a test compares both values.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a process waits for a response of PostgreSQL.
pub const MAX_RESPONSE_TIME: Duration = Duration::from_secs(12);

/// How long a blocking read waits in Redis.
pub const BLOCKING_READ: Duration = Duration::from_secs(1);

/// How often a process compares its configuration with the database.
pub const CONFIGURATION_RECONCILE_INTERVAL: Duration = Duration::from_secs(5);

/// How often a process reports the configuration revision that it applies.
pub const CONFIGURATION_REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// A process that has not reported for this long is not counted as live.
pub const CONFIGURATION_REPORT_TIMEOUT: Duration = Duration::from_secs(6);

/// How often a process reads new revocations.
pub const REVOCATIONS_READ_INTERVAL: Duration = Duration::from_millis(500);

/// By how much a read of revocations overlaps the previous one: longer than any revoking transaction may take.
pub const REVOCATIONS_OVERLAP: Duration = Duration::from_secs(30);

/// How long an access token is valid.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// How long a revocation is kept: longer than the lifetime of a token that was issued with a clock one hour fast.
pub const REVOCATION_LIFETIME: Duration = TOKEN_LIFETIME.saturating_add(Duration::from_secs(65 * 60));

/// Whether `longer` is longer than `times` × `shorter`.
#[must_use]
pub const fn is_longer(longer: Duration, times: u128, shorter: Duration) -> bool {
    longer.as_micros() > times * shorter.as_micros()
}

// PostgreSQL ends a slow statement and reports it before the process stops waiting for the response.
const _: () = assert!(is_longer(MAX_RESPONSE_TIME, 1, STATEMENT_TIMEOUT));
// Two consecutive reports may be lost before a process is no longer counted.
const _: () =
    assert!(CONFIGURATION_REPORT_TIMEOUT.as_micros() >= 3 * CONFIGURATION_REPORT_INTERVAL.as_micros());
// Revocations take effect in every process within a second of their commit.
const _: () = assert!(is_longer(Duration::from_secs(1), 1, REVOCATIONS_READ_INTERVAL));
// A revoking transaction runs for a few statements at most, so a revocation that it commits late is still read.
const _: () = assert!(is_longer(REVOCATIONS_OVERLAP, 2, MAX_RESPONSE_TIME));
// A revocation outlives every token that it revokes.
const _: () = assert!(is_longer(REVOCATION_LIFETIME, 1, TOKEN_LIFETIME));
