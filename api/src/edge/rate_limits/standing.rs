//! How a caller stands with a limit, as headers say it ([RateLimit header
//! fields](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/)).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::buckets::{Level, Quota};
use crate::edge::problem::{Code, Problem};

/// How a caller stands with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    policy: &'static str,
    quota: u32,
    window: u64,
    remaining: u32,
    reset: u64,
}

impl Standing {
    /// Adds `RateLimit` and `RateLimit-Policy`.
    pub fn apply(self, headers: &mut HeaderMap) {
        for (name, value) in self.headers() {
            headers.insert(name, value);
        }
    }

    /// What to answer at this level: the standing, or a refusal with this code whose headers agree with each other.
    pub(super) fn judge(
        policy: &'static str,
        code: Code,
        quota: Quota,
        level: Level,
    ) -> Result<Self, Problem> {
        let (cells, window) = (quota.cells.get(), quota.window.as_secs());
        match level {
            Level::Taken { remaining, full_in } => {
                Ok(Self { policy, quota: cells, window, remaining, reset: seconds(full_in) })
            }
            Level::Empty { wait } => {
                let wait = seconds(wait);
                let standing = Self { policy, quota: cells, window, remaining: 0, reset: wait };
                let detail =
                    format!("At most {cells} every {window} s here; the next is possible in {wait} s.");
                let problem = Problem::new(code, detail).header(header::RETRY_AFTER, wait.into());
                let headers = standing.headers();
                Err(headers.fold(problem, |problem, (name, value)| problem.header(name, value)))
            }
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

/// Whole seconds, rounded up and never 0: who comes back at that time is let in.
fn seconds(duration: Duration) -> u64 {
    duration.as_nanos().div_ceil(1_000_000_000).max(1).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::edge::request_id::RequestId;

    #[test]
    fn headers_agree() {
        let two = NonZeroU32::MIN.saturating_add(1);
        let quota = Quota { cells: two, window: Duration::from_secs(60) };
        let judge = |level| Standing::judge("test", Code::RateLimited, quota, level);
        let first = judge(Level::Taken { remaining: 1, full_in: Duration::from_secs(30) });
        let mut headers = HeaderMap::new();
        first.expect("a cell was taken").apply(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"test\";q=2;w=60");
        assert_eq!(headers["ratelimit"], "\"test\";r=1;t=30");
        let refused = judge(Level::Empty { wait: Duration::from_nanos(29_000_000_001) });
        let headers = refused.expect_err("none is left").respond(&RequestId::new()).headers().clone();
        assert_eq!(headers["ratelimit"], "\"test\";r=0;t=30");
        assert_eq!(headers["retry-after"], "30");
    }
}
