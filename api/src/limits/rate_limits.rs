//! How often a caller may ask. The quotas are configuration, and change while the process runs.

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

/// How often buckets that are full again are dropped.
const UPKEEP: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);

/// All limits of the process.
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
    /// Limits with the quotas that the configuration names.
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

    /// Counts a sign-in: first of the address, so that one that asks too often uses up nothing of what is there for
    /// all, then of all.
    ///
    /// # Errors
    /// [`Code::RateLimited`], with the headers that say until when.
    pub async fn sign_in(&self, client: IpAddr) -> Result<QuotaStatus, Problem> {
        let platform = self.configuration.platform();
        let quotas = platform.organization();
        let status = self.sign_ins.check(&self.shared, &address(client), quotas.sign_ins_per_minute).await?;
        self.all_sign_ins.check(&self.shared, &[], quotas.sign_ins_per_minute_total).await?;
        Ok(status)
    }

    /// Counts a refresh. One address may ask for as many as a user may send requests: many people behind one address
    /// refresh every quarter of an hour each.
    ///
    /// # Errors
    /// [`Code::RateLimited`], with the headers that say until when.
    pub async fn refresh(&self, client: IpAddr) -> Result<QuotaStatus, Problem> {
        let platform = self.configuration.platform();
        self.refreshes
            .check(&self.shared, &address(client), platform.organization().requests_per_minute)
            .await
    }

    /// Counts a request of a user, or of a service's key.
    ///
    /// # Errors
    /// [`Code::RateLimited`], with the headers that say until when.
    pub async fn request(&self, caller: Uuid) -> Result<QuotaStatus, Problem> {
        let platform = self.configuration.platform();
        self.requests
            .check(&self.shared, caller.as_bytes(), platform.organization().requests_per_minute)
            .await
    }

    /// Counts a request against the quota of an organization. The caller must be known to be a member.
    ///
    /// # Errors
    /// [`Code::QuotaExceeded`], with the headers that say until when.
    pub async fn organization(&self, snapshot: &Snapshot, org: OrgId) -> Result<QuotaStatus, Problem> {
        let quota = snapshot.organization().quota_requests_per_minute;
        self.organizations.check(&self.shared, org.uuid().as_bytes(), quota).await
    }

    /// Counts a chat action; `per_second` is what the project's configuration says. In this process alone: a person's
    /// windows mostly keep one connection each, and who spreads their presses over all processes still presses against
    /// the quota of the organization, which all processes share.
    ///
    /// # Errors
    /// [`Code::RateLimited`], with the headers that say until when.
    pub fn chat_action(
        &self,
        user: UserId,
        org: OrgId,
        project: ProjectId,
        per_second: NonZeroU32,
    ) -> Result<QuotaStatus, Problem> {
        let key = [user.uuid(), org.uuid(), project.uuid()].map(Uuid::into_bytes).concat();
        self.chat_actions.check_here(&key, per_second)
    }

    /// Whether a token from this address may be verified: not when too many from there were invalid, unless this very
    /// one was valid before.
    ///
    /// # Errors
    /// [`Code::RateLimited`], with the headers that say until when.
    pub fn may_try(&self, client: IpAddr, token: &str) -> Result<(), Problem> {
        let quota = self.configuration.platform().organization().bad_tokens_per_minute;
        match self.bad_tokens.refusal(self.shared.now(), &address(client), quota) {
            Some(refusal) if !self.known_tokens.contains(token) => Err(refusal),
            _ => Ok(()),
        }
    }

    /// Remembers a token that was valid.
    pub fn held(&self, token: &str) {
        self.known_tokens.insert(token);
    }

    /// Counts an invalid token.
    ///
    /// # Errors
    /// [`Code::RateLimited`], with the headers that say until when.
    pub async fn bad_token(&self, client: IpAddr) -> Result<QuotaStatus, Problem> {
        let quota = self.configuration.platform().organization().bad_tokens_per_minute;
        self.bad_tokens.check(&self.shared, &address(client), quota).await
    }

    /// Keeps in touch with the other processes, and drops buckets that are full again, until the process stops.
    pub async fn upkeep(&self, stop: CancellationToken) {
        let drop_full = async {
            let mut ticks = tokio::time::interval(UPKEEP);
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
        tokio::join!(self.shared.keep_beating(&stop), drop_full);
    }
}

/// A network that one subscriber has for themselves: a whole /64 in IPv6, where addresses cost nothing.
pub(crate) fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & (u128::MAX << 64)).into()),
        v4 => v4,
    }
}

/// What a limit by address counts by.
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
    fn an_ipv6_subscriber_is_one() {
        let parse = |text: &str| subscriber(text.parse().expect("an address"));
        assert_eq!(parse("2001:db8::1"), parse("2001:db8::ffff:1"));
        assert_ne!(parse("2001:db8:0:1::1"), parse("2001:db8::1"));
        assert_eq!(parse("::ffff:10.0.0.1"), parse("10.0.0.1"));
        assert_ne!(parse("10.0.0.1"), parse("10.0.0.2"));
    }
}
