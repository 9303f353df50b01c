//! How much of a rate limit a caller has left, as reported in headers ([RateLimit header
//! fields](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/)).
//!
//! The response to an accepted request has the status of the limit that the request was counted against. The response
//! to a rejected one has the status of the limit that was exceeded, and a matching `Retry-After`.

use std::{num::NonZeroU32, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::problem::{Code, Problem};

/// How much of a rate limit is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaStatus {
    policy: &'static str,
    quota: NonZeroU32,
    window: u64,
    remaining: u32,
    reset: u64,
}

impl QuotaStatus {
    /// `remaining` of `quota` requests are left; the quota is full again after `full_in`.
    #[must_use]
    pub fn new(
        policy: &'static str,
        quota: NonZeroU32,
        window: Duration,
        remaining: u32,
        full_in: Duration,
    ) -> Self {
        Self { policy, quota, window: window.as_secs(), remaining, reset: seconds(full_in) }
    }

    /// The problem for a request that exceeds the limit; the next one is accepted after `wait`.
    #[must_use]
    pub fn rejection(
        policy: &'static str,
        code: Code,
        quota: NonZeroU32,
        window: Duration,
        wait: Duration,
    ) -> Problem {
        let status = Self::new(policy, quota, window, 0, wait);
        let (window, wait) = (status.window, status.reset);
        let detail =
            format!("Limit reached: {quota} requests per {window} seconds; try again in {wait} seconds.");
        let problem = Problem::new(code, detail).header(header::RETRY_AFTER, wait.into());
        status.headers().fold(problem, |problem, (name, value)| problem.header(name, value))
    }

    /// Adds `RateLimit` and `RateLimit-Policy`.
    pub fn apply(self, headers: &mut HeaderMap) {
        for (name, value) in self.headers() {
            headers.insert(name, value);
        }
    }

    fn headers(self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
        const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
        let Self { policy, quota, window, remaining, reset } = self;
        let headers = [
            (RATE_LIMIT_POLICY, format!("\"{policy}\";q={quota};w={window}")),
            (RATE_LIMIT, format!("\"{policy}\";r={remaining};t={reset}")),
        ];
        headers.into_iter().filter_map(|(name, value)| Some((name, HeaderValue::try_from(value).ok()?)))
    }
}

/// Whole seconds, rounded up and never 0, so that a request at that time is accepted.
fn seconds(duration: Duration) -> u64 {
    duration.as_nanos().div_ceil(1_000_000_000).max(1).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{request_id::RequestId, response};

    #[test]
    fn retry_after_agrees_with_the_rate_limit_headers() {
        let (quota, window) = (NonZeroU32::MIN.saturating_add(1), Duration::from_secs(60));
        let mut headers = HeaderMap::new();
        QuotaStatus::new("test", quota, window, 1, Duration::from_secs(30)).apply(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"test\";q=2;w=60");
        assert_eq!(headers["ratelimit"], "\"test\";r=1;t=30");
        let wait = Duration::from_nanos(29_000_000_001);
        let problem = QuotaStatus::rejection("test", Code::RateLimited, quota, window, wait);
        let headers = response::problem(problem, &RequestId::new()).headers().clone();
        assert_eq!(headers["ratelimit"], "\"test\";r=0;t=30");
        assert_eq!(headers["retry-after"], "30");
    }
}
