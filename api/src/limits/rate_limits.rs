//! Rate limits of callers. Their quotas are configuration, and change while the process runs.

use std::{net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

use atrium_shared::{
    configuration::{ConfigurationStore, Snapshot},
    ids::{OrgId, ProjectId, UserId},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{known_tokens::KnownTokens, limiter::Limiter, shared::Shared};
use crate::http::{
    problem::{Code, Problem},
    quota_status::QuotaStatus,
};

/// How often full buckets are dropped.
const DROP_INTERVAL: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);

/// All rate limits of the process.
pub struct RateLimits {
    configuration: ConfigurationStore,
    shared: Arc<Shared>,
    known_tokens: KnownTokens,
    sign_ins: Limiter,
    all_sign_ins: Limiter,
    bad_tokens: Limiter,
    refreshes: Limiter,
    requests: Limiter,
    organizations: Limiter,
    chat_actions: Limiter,
}

impl RateLimits {
    /// Rate limits with the quotas of the configuration.
    #[must_use]
    pub fn new(configuration: ConfigurationStore, shared: Arc<Shared>) -> Self {
        let limiter = |policy| Limiter::new(policy, Code::RateLimited, MINUTE);
        Self {
            configuration,
            shared,
            known_tokens: KnownTokens::default(),
            sign_ins: limiter("sign_ins"),
            all_sign_ins: limiter("all_sign_ins"),
            bad_tokens: limiter("bad_tokens"),
            refreshes: limiter("refreshes"),
            requests: limiter("requests"),
            organizations: Limiter::new("org_requests", Code::QuotaExceeded, MINUTE),
            chat_actions: Limiter::new("chat_actions", Code::RateLimited, Duration::from_secs(1)),
        }
    }

    /// Counts a sign-in, first for its address and then in total, so that an address over its limit uses up nothing of
    /// the total.
    ///
    /// # Errors
    /// [`Code::RateLimited`], with the wait in its headers.
    pub async fn sign_in(&self, client: IpAddr) -> Result<QuotaStatus, Problem> {
        let platform = self.configuration.platform();
        let quotas = platform.organization();
        let status = self.sign_ins.check(&self.shared, &address(client), quotas.sign_ins_per_minute).await?;
        self.all_sign_ins.check(&self.shared, &[], quotas.sign_ins_per_minute_total).await?;
        Ok(status)
    }

    /// Counts a refresh. One address may send as many refreshes as a user may send requests, because many users may
    /// share an address, and each refreshes every 15 minutes.
    ///
    /// # Errors
    /// [`Code::RateLimited`], with the wait in its headers.
    pub async fn refresh(&self, client: IpAddr) -> Result<QuotaStatus, Problem> {
        let platform = self.configuration.platform();
        self.refreshes
            .check(&self.shared, &address(client), platform.organization().requests_per_minute)
            .await
    }

    /// Counts a request of a user or an API key.
    ///
    /// # Errors
    /// [`Code::RateLimited`], with the wait in its headers.
    pub async fn request(&self, caller: Uuid) -> Result<QuotaStatus, Problem> {
        let platform = self.configuration.platform();
        self.requests
            .check(&self.shared, caller.as_bytes(), platform.organization().requests_per_minute)
            .await
    }

    /// Counts a request against the quota of an organization. The caller must have been verified to be a member.
    ///
    /// # Errors
    /// [`Code::QuotaExceeded`], with the wait in its headers.
    pub async fn organization(&self, snapshot: &Snapshot, org: OrgId) -> Result<QuotaStatus, Problem> {
        let quota = snapshot.organization().quota_requests_per_minute;
        self.organizations.check(&self.shared, org.uuid().as_bytes(), quota).await
    }

    /// Counts a chat action; `per_second` is the quota in the project's configuration. It is counted in this process
    /// alone: a user's window usually keeps one connection, and presses that are spread over all processes still count
    /// against the organization's quota, which all processes share.
    ///
    /// # Errors
    /// [`Code::RateLimited`], with the wait in its headers.
    pub fn chat_action(
        &self,
        user: UserId,
        org: OrgId,
        project: ProjectId,
        per_second: NonZeroU32,
    ) -> Result<QuotaStatus, Problem> {
        let key = [user.uuid(), org.uuid(), project.uuid()].map(Uuid::into_bytes).concat();
        self.chat_actions.check_in_process(&key, per_second)
    }

    /// Checks whether a token from this address may be verified: not if too many tokens from the address were invalid,
    /// unless this token was valid before.
    ///
    /// # Errors
    /// [`Code::RateLimited`], with the wait in its headers.
    pub fn check_bad_tokens(&self, client: IpAddr, token: &str) -> Result<(), Problem> {
        let quota = self.configuration.platform().organization().bad_tokens_per_minute;
        match self.bad_tokens.rejection(self.shared.now(), &address(client), quota) {
            Some(rejection) if !self.known_tokens.contains(token) => Err(rejection),
            _ => Ok(()),
        }
    }

    /// Records a token that was valid.
    pub fn record_valid_token(&self, token: &str) {
        self.known_tokens.insert(token);
    }

    /// Counts an invalid token.
    ///
    /// # Errors
    /// [`Code::RateLimited`], with the wait in its headers.
    pub async fn count_bad_token(&self, client: IpAddr) -> Result<QuotaStatus, Problem> {
        let quota = self.configuration.platform().organization().bad_tokens_per_minute;
        self.bad_tokens.check(&self.shared, &address(client), quota).await
    }

    /// Sends the heartbeats of this process and drops full buckets, until the process stops.
    pub async fn upkeep(&self, stop: CancellationToken) {
        let drop_full = async {
            let mut ticks = tokio::time::interval(DROP_INTERVAL);
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                let now = self.shared.now();
                for limiter in [
                    &self.sign_ins,
                    &self.all_sign_ins,
                    &self.bad_tokens,
                    &self.refreshes,
                    &self.requests,
                    &self.organizations,
                    &self.chat_actions,
                ] {
                    limiter.drop_full(now);
                }
            }
        };
        tokio::join!(self.shared.send_heartbeats(&stop), drop_full);
    }
}

/// The network of one subscriber: an address in IPv4, a whole /64 in IPv6, in which addresses can be changed freely.
pub(crate) fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & (u128::MAX << 64)).into()),
        v4 => v4,
    }
}

/// The key of a limit by address.
fn address(client: IpAddr) -> [u8; 16] {
    match subscriber(client) {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_ipv6_subscriber_count_together() {
        let parse = |text: &str| subscriber(text.parse().expect("an address"));
        assert_eq!(parse("2001:db8::1"), parse("2001:db8::ffff:1"));
        assert_ne!(parse("2001:db8:0:1::1"), parse("2001:db8::1"));
        assert_eq!(parse("::ffff:10.0.0.1"), parse("10.0.0.1"));
        assert_ne!(parse("10.0.0.1"), parse("10.0.0.2"));
    }
}
