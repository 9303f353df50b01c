//! Who may ask how often: token buckets (GCRA, by governor) in this process's memory, for four kinds of thing.
//!
//! The quotas are configuration and change while the process runs. A bucket knows its quota for life, so there is
//! one set of buckets for each value of a quota that is in use; who gets a new quota begins with a full bucket.
//!
//! Memory is bounded: full buckets are dropped once a minute, and when a set holds too many keys, keys it has no
//! room for share buckets. Sharing is stricter for the many, never looser.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash, RandomState},
    net::IpAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use atrium_shared::{
    configuration::ConfigurationStore,
    ids::{OrgId, ProjectId, UserId},
    telemetry::metrics::RATE_LIMITED,
};
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    middleware::StateInformationMiddleware,
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use metrics::counter;
use tokio_util::sync::CancellationToken;

use super::problem::{Code, Problem};

/// The most keys that have buckets of their own, in one set.
const MAX_KEYS: usize = 100_000;
/// Buckets for all the other keys.
const SHARED_BUCKETS: u64 = 4096;
/// How often buckets that are full again are dropped.
const UPKEEP: Duration = Duration::from_secs(60);

/// All limits of the process.
pub struct RateLimits {
    configuration: ConfigurationStore,
    sign_ins: Limiter<IpAddr>,
    refreshes: Limiter<IpAddr>,
    requests: Limiter<UserId>,
    chat_actions: Limiter<(UserId, OrgId, ProjectId)>,
}

impl RateLimits {
    /// Limits with the quotas that the configuration names.
    #[must_use]
    pub fn new(configuration: ConfigurationStore) -> Self {
        Self {
            configuration,
            sign_ins: Limiter::new("sign_ins", Duration::from_secs(60)),
            refreshes: Limiter::new("refreshes", Duration::from_secs(60)),
            requests: Limiter::new("requests", Duration::from_secs(60)),
            chat_actions: Limiter::new("chat_actions", Duration::from_secs(1)),
        }
    }

    /// Counts a sign-in.
    ///
    /// # Errors
    /// [`Code::RateLimited`], with the headers that say until when.
    pub fn sign_in(&self, client: IpAddr) -> Result<Standing, Problem> {
        self.sign_ins
            .check(subscriber(client), self.configuration.platform().organization().sign_ins_per_minute)
    }

    /// Counts a refresh. One address may ask for as many as a user may send requests: many people behind one address
    /// refresh every quarter of an hour each.
    ///
    /// # Errors
    /// [`Code::RateLimited`], with the headers that say until when.
    pub fn refresh(&self, client: IpAddr) -> Result<Standing, Problem> {
        self.refreshes
            .check(subscriber(client), self.configuration.platform().organization().requests_per_minute)
    }

    /// Counts a request of a user.
    ///
    /// # Errors
    /// [`Code::RateLimited`], with the headers that say until when.
    pub fn request(&self, user: UserId) -> Result<Standing, Problem> {
        self.requests.check(user, self.configuration.platform().organization().requests_per_minute)
    }

    /// Counts a chat action; `per_second` is what the project's configuration says.
    ///
    /// # Errors
    /// [`Code::RateLimited`], with the headers that say until when.
    pub fn chat_action(
        &self,
        user: UserId,
        org: OrgId,
        project: ProjectId,
        per_second: NonZeroU32,
    ) -> Result<Standing, Problem> {
        self.chat_actions.check((user, org, project), per_second)
    }

    /// Drops buckets that are full again, until the process stops.
    pub async fn upkeep(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(UPKEEP);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.sign_ins.drop_full();
            self.refreshes.drop_full();
            self.requests.drop_full();
            self.chat_actions.drop_full();
        }
    }
}

/// A network that one subscriber has for themselves: a whole /64 in IPv6, where addresses cost nothing.
pub(super) fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & (u128::MAX << 64)).into()),
        v4 => v4,
    }
}

/// How a caller stands with a limit, for the headers of the answer ([RateLimit
/// header fields](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/)).
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
        const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
        const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
        let Self { policy, quota, window, remaining, reset } = self;
        for (name, value) in [
            (RATE_LIMIT_POLICY, format!("\"{policy}\";q={quota};w={window}")),
            (RATE_LIMIT, format!("\"{policy}\";r={remaining};t={reset}")),
        ] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
    }
}

type Buckets<K> = DefaultKeyedRateLimiter<Key<K>, StateInformationMiddleware>;

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key<K> {
    Own(K),
    Shared(u64),
}

struct Limiter<K: Clone + Eq + Hash> {
    policy: &'static str,
    window: Duration,
    by_quota: Mutex<HashMap<NonZeroU32, Arc<Buckets<K>>>>,
    // Seeded at random, so that nobody can choose whom to share a bucket with.
    hasher: RandomState,
    max_keys: usize,
}

impl<K: Clone + Eq + Hash> Limiter<K> {
    fn new(policy: &'static str, window: Duration) -> Self {
        Self { policy, window, by_quota: Mutex::default(), hasher: RandomState::new(), max_keys: MAX_KEYS }
    }

    fn check(&self, key: K, quota: NonZeroU32) -> Result<Standing, Problem> {
        let buckets = self.buckets(quota);
        let key = if buckets.len() < self.max_keys {
            Key::Own(key)
        } else {
            Key::Shared(self.hasher.hash_one(&key) % SHARED_BUCKETS)
        };
        let standing = |remaining, reset| Standing {
            policy: self.policy,
            quota: quota.get(),
            window: self.window.as_secs(),
            remaining,
            reset,
        };
        match buckets.check_key(&key) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                // Until the bucket is full again.
                let refill = self.window * quota.get().saturating_sub(remaining) / quota.get();
                Ok(standing(remaining, seconds(refill)))
            }
            Err(not_until) => {
                counter!(RATE_LIMITED, "policy" => self.policy).increment(1);
                let wait = seconds(not_until.wait_time_from(DefaultClock::default().now()));
                let mut headers = HeaderMap::new();
                standing(0, wait).apply(&mut headers);
                let detail = format!(
                    "At most {quota} every {} s here; the next is possible in {wait} s.",
                    self.window.as_secs()
                );
                let problem =
                    Problem::new(Code::RateLimited, detail).header(header::RETRY_AFTER, wait.into());
                Err(headers.into_iter().fold(problem, |problem, (name, value)| match name {
                    Some(name) => problem.header(name, value),
                    None => problem,
                }))
            }
        }
    }

    fn buckets(&self, quota: NonZeroU32) -> Arc<Buckets<K>> {
        let mut by_quota = self.by_quota.lock().unwrap_or_else(PoisonError::into_inner);
        let buckets = by_quota.entry(quota).or_insert_with(|| {
            // A whole window's quota at once, and then one each share of the window.
            let quota = Quota::with_period(self.window / quota.get())
                .unwrap_or_else(|| Quota::per_second(quota))
                .allow_burst(quota);
            Arc::new(RateLimiter::keyed(quota).with_middleware())
        });
        Arc::clone(buckets)
    }

    fn drop_full(&self) {
        let sets: Vec<_> = {
            let by_quota = self.by_quota.lock().unwrap_or_else(PoisonError::into_inner);
            by_quota.values().cloned().collect()
        };
        for buckets in sets {
            buckets.retain_recent();
            buckets.shrink_to_fit();
        }
        // A quota that nobody has any more. Whoever checks right now holds the set, which then stays.
        self.by_quota
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, buckets| !buckets.is_empty() || Arc::strong_count(buckets) > 1);
    }
}

/// Whole seconds, rounded up and never 0: who comes back at that time is let in.
fn seconds(duration: Duration) -> u64 {
    duration.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(value: u32) -> NonZeroU32 {
        NonZeroU32::new(value).unwrap_or(NonZeroU32::MIN)
    }

    #[test]
    fn a_quota_is_admitted_and_no_more() {
        let limiter = Limiter::new("test", Duration::from_secs(60));
        let admitted = (0..150).filter(|_| limiter.check(1, quota(100)).is_ok()).count();
        assert_eq!(admitted, 100);
        assert!(limiter.check(2, quota(100)).is_ok());
    }

    #[test]
    fn headers_agree() {
        let limiter = Limiter::new("test", Duration::from_secs(60));
        let first = limiter.check(1, quota(2)).expect("the bucket is full");
        let mut headers = HeaderMap::new();
        first.apply(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"test\";q=2;w=60");
        assert_eq!(headers["ratelimit"], "\"test\";r=1;t=30");
        limiter.check(1, quota(2)).expect("one is left");
        let refused = limiter.check(1, quota(2)).expect_err("none is left");
        let headers = refused.respond(&super::super::request_id::RequestId::new()).headers().clone();
        assert_eq!(headers["ratelimit"], "\"test\";r=0;t=30");
        assert_eq!(headers["retry-after"], "30");
    }

    #[test]
    fn a_new_quota_holds_at_once() {
        let limiter = Limiter::new("test", Duration::from_secs(60));
        limiter.check(1, quota(1)).expect("the bucket is full");
        assert!(limiter.check(1, quota(1)).is_err());
        assert!(limiter.check(1, quota(5)).is_ok());
    }

    #[test]
    fn many_keys_share_buckets_and_memory_stays() {
        let limiter = Limiter { max_keys: 10, ..Limiter::new("test", Duration::from_secs(60)) };
        let admitted = (0..20_000).filter(|key| limiter.check(*key, quota(1)).is_ok()).count();
        let keys = limiter.buckets(quota(1)).len();
        assert!(keys as u64 <= 10 + SHARED_BUCKETS, "{keys} keys");
        assert_eq!(admitted, keys);
    }

    #[test]
    fn an_ipv6_subscriber_is_one() {
        let parse = |text: &str| subscriber(text.parse().expect("an address"));
        assert_eq!(parse("2001:db8::1"), parse("2001:db8::ffff:1"));
        assert_ne!(parse("2001:db8:0:1::1"), parse("2001:db8::1"));
        assert_eq!(parse("::ffff:10.0.0.1"), parse("10.0.0.1"));
        assert_ne!(parse("10.0.0.1"), parse("10.0.0.2"));
    }
}
