//! Times that depend on each other, and the relations between them, checked at compile time.
//!
//! A time that nothing else depends on is defined where it is used.

use std::time::Duration;

/// How long PostgreSQL lets a statement of `atrium_app` run. Set on the role by the migrations; a test compares both.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer of PostgreSQL is waited for.
pub const MAX_RESPONSE_TIME: Duration = Duration::from_secs(12);

/// How long a blocking read waits in Redis.
pub const BLOCKING_READ: Duration = Duration::from_secs(1);

/// How often a process compares its cached configuration with the database.
pub const CONFIGURATION_RECONCILE_INTERVAL: Duration = Duration::from_secs(5);

/// How often a process reports which configuration it applies.
pub const CONFIGURATION_REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// A process that has not reported for this long is not counted.
pub const CONFIGURATION_REPORT_TIMEOUT: Duration = Duration::from_secs(6);

/// How often a process polls for newly revoked access.
pub const REVOCATIONS_READ_INTERVAL: Duration = Duration::from_millis(500);

/// How far before its last read a process polls again: longer than any transaction that revokes may take.
pub const REVOCATIONS_OVERLAP: Duration = Duration::from_secs(30);

/// Lifetime of an access token.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// Lifetime of a revocation: longer than that of a token issued by a process whose clock is an hour ahead.
pub const REVOCATION_LIFETIME: Duration = TOKEN_LIFETIME.saturating_add(Duration::from_secs(65 * 60));

/// Whether `longer` is longer than `times` as long as `shorter`.
#[must_use]
pub const fn is_longer(longer: Duration, times: u128, shorter: Duration) -> bool {
    longer.as_micros() > times * shorter.as_micros()
}

// PostgreSQL ends a statement, and reports it, before any caller stops waiting for its response.
const _: () = assert!(is_longer(MAX_RESPONSE_TIME, 1, STATEMENT_TIMEOUT));
// Two reports may be lost before a process counts as silent.
const _: () =
    assert!(CONFIGURATION_REPORT_TIMEOUT.as_micros() >= 3 * CONFIGURATION_REPORT_INTERVAL.as_micros());
// Revocations apply in every process within a second of their commit.
const _: () = assert!(is_longer(Duration::from_secs(1), 1, REVOCATIONS_READ_INTERVAL));
// A revoking transaction runs for a few statements at most; what it commits late is still read.
const _: () = assert!(is_longer(REVOCATIONS_OVERLAP, 2, MAX_RESPONSE_TIME));
// A revocation outlives every token that it ends.
const _: () = assert!(is_longer(REVOCATION_LIFETIME, 1, TOKEN_LIFETIME));
