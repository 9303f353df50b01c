//! The prepared effects that create and remove an organization's namespace in the cluster.

use std::time::Duration;

use atrium_shared::ids::OrgId;
use futures_util::future::BoxFuture;

use super::step::{ExternalEffect, Failure, Verdict};
use crate::isolation::{Cluster, ClusterError, Isolation};

// Details of steps, shown to the user.
pub(super) const NOT_REQUIRED: &str = "this deployment asks for no isolation in the cluster";
pub(super) const CREATED: &str = "its namespace is in place";
pub(super) const REMOVED: &str = "its namespace is gone, with everything that was in it";
pub(super) const NONE_TO_REMOVE: &str =
    "this deployment asks for no isolation in the cluster, so there was none to remove";

/// How long to wait before a step is tried again, while the cluster is busy or still removing a namespace.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// The effect after which the namespace exists.
#[derive(Clone)]
pub(super) struct Namespace(Cluster);

/// The effect after which the namespace no longer exists.
pub(super) struct Released(pub(super) Namespace);

impl Namespace {
    /// Returns `None` if the deployment requires no isolation.
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
                Err(error @ (ClusterError::Rejected(_) | ClusterError::NotOurs)) => {
                    report(org, &error);
                    Verdict::Fail(Failure {
                        code: "isolation_refused",
                        detail: "the cluster refuses to isolate the organization; its operator has to look"
                            .to_owned(),
                    })
                }
                Err(error) => {
                    report(org, &error);
                    Verdict::RetryAfter(RETRY_PAUSE, "the cluster is not ready; trying again".to_owned())
                }
            }
        })
    }

    /// Does not wait until the cluster has finished, because a removal that has started cannot be stopped.
    fn remove(&self, org: OrgId) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            match self.0.release(org).await {
                // A namespace that Atrium did not create is left alone.
                Ok(_) | Err(ClusterError::NotOurs) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

impl ExternalEffect for Released {
    fn apply(&self, org: OrgId) -> BoxFuture<'_, Verdict> {
        Box::pin(async move {
            match self.0.0.release(org).await {
                Ok(true) | Err(ClusterError::NotOurs) => Verdict::Done(None),
                Ok(false) => Verdict::RetryAfter(
                    RETRY_PAUSE,
                    "waiting until the cluster has removed its namespace".to_owned(),
                ),
                Err(error) => {
                    report(org, &error);
                    Verdict::RetryAfter(RETRY_PAUSE, "the cluster is not ready; trying again".to_owned())
                }
            }
        })
    }

    /// Does nothing: the step comes after the pivot and is never compensated.
    fn remove(&self, _org: OrgId) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

/// Reports an error of the cluster to the operator. The tenant does not see it.
fn report(org: OrgId, error: &ClusterError) {
    tracing::warn!(%org, error = %error, "the cluster did not do what a saga asked for");
}
