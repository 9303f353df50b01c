//! An organization's namespace in the cluster, created and removed by sagas.

use std::time::Duration;

use atrium_shared::ids::OrgId;
use futures_util::future::BoxFuture;

use super::step::{ExternalEffect, Failure, Verdict};
use crate::isolation::{Cluster, Isolation, Trouble};

// Details of steps, shown to the user.
pub(super) const NOT_ASKED_FOR: &str = "this deployment asks for no isolation in the cluster";
pub(super) const MADE: &str = "its namespace is in place";
pub(super) const GONE: &str = "its namespace is gone, with everything that was in it";
pub(super) const NONE_TO_REMOVE: &str =
    "this deployment asks for no isolation in the cluster, so there was none to remove";

/// How long to wait before a step is tried again, while the cluster is busy or still removing a namespace.
const PAUSE: Duration = Duration::from_secs(2);

/// The effect that the namespace exists.
#[derive(Clone)]
pub(super) struct Namespace(Cluster);

/// The effect that the namespace is gone.
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

    /// Does not wait until the cluster is done: a removal that has begun cannot be stopped.
    fn remove(&self, org: OrgId) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            match self.0.release(org).await {
                // A namespace that Atrium did not create is left alone.
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

    /// Nothing to do: the step comes after the pivot and is never compensated.
    fn remove(&self, _org: OrgId) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

/// Reports an error of the cluster to the operator. The tenant does not see it.
fn report(org: OrgId, trouble: &Trouble) {
    tracing::warn!(%org, error = %trouble, "the cluster did not do what a saga asked for");
}
