//! An organization's namespace in the cluster, as sagas make and remove it.

use std::time::Duration;

use atrium_shared::ids::OrgId;
use futures_util::future::BoxFuture;

use super::step::{ExternalEffect, Failure, Verdict};
use crate::isolation::{Cluster, Isolation, Trouble};

/// What the steps say to the person who waits.
pub(super) const NOT_ASKED_FOR: &str = "this deployment asks for no isolation in the cluster";
pub(super) const MADE: &str = "its namespace is in place";
pub(super) const GONE: &str = "its namespace is gone, with everything that was in it";
pub(super) const NONE_TO_REMOVE: &str =
    "this deployment asks for no isolation in the cluster, so there was none to remove";

/// How long to wait for a cluster that is busy, or on the way to removing what was there.
const PAUSE: Duration = Duration::from_secs(2);

/// The namespace is there.
#[derive(Clone)]
pub(super) struct Namespace(Cluster);

/// The namespace is gone.
pub(super) struct Released(pub(super) Namespace);

impl Namespace {
    /// None where the deployment asks for no isolation.
    pub(super) fn of(isolation: &Isolation) -> Option<Self> {
        match isolation {
            Isolation::None => None,
            Isolation::Kubernetes(cluster) => Some(Self(cluster.clone())),
        }
    }
}

impl ExternalEffect for Namespace {
    fn apply(&self, org: OrgId) -> BoxFuture<'_, Verdict> {
        Box::pin(async move {
            match self.0.isolate(org).await {
                Ok(()) => Verdict::Done(None),
                Err(trouble @ (Trouble::Refused(_) | Trouble::NotOurs)) => {
                    report(org, &trouble);
                    Verdict::Fail(Failure {
                        code: "isolation_refused",
                        detail: "the cluster refuses to isolate the organization; its operator has to look"
                            .to_owned(),
                    })
                }
                Err(trouble) => {
                    report(org, &trouble);
                    Verdict::RetryAfter(PAUSE, "the cluster is not ready; trying again".to_owned())
                }
            }
        })
    }

    /// Once the cluster has begun to remove it, nothing stops it.
    fn remove(&self, org: OrgId) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            match self.0.release(org).await {
                // One that somebody else made is not ours to remove.
                Ok(_) | Err(Trouble::NotOurs) => Ok(()),
                Err(trouble) => Err(trouble.to_string()),
            }
        })
    }
}

impl ExternalEffect for Released {
    fn apply(&self, org: OrgId) -> BoxFuture<'_, Verdict> {
        Box::pin(async move {
            match self.0.0.release(org).await {
                Ok(true) | Err(Trouble::NotOurs) => Verdict::Done(None),
                Ok(false) => Verdict::RetryAfter(
                    PAUSE,
                    "waiting until the cluster has removed its namespace".to_owned(),
                ),
                Err(trouble) => {
                    report(org, &trouble);
                    Verdict::RetryAfter(PAUSE, "the cluster is not ready; trying again".to_owned())
                }
            }
        })
    }

    /// What is gone is not made again: it comes after the pivot.
    fn remove(&self, _org: OrgId) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

/// What the cluster says is for the operator, not for the tenant.
fn report(org: OrgId, trouble: &Trouble) {
    tracing::warn!(%org, error = %trouble, "the cluster did not do what a saga asked for");
}
