//! Isolates organizations from each other in the cluster, by a namespace for each, if the deployment requires it.
//!
//! The saga that creates an organization creates the namespace before it opens the organization, and removes it if the
//! creation fails. The saga that deletes the organization removes the namespace and certifies the removal. Its name and
//! labels are derived from the organization's id alone, and everything is applied server-side under one field manager,
//! so creating it twice changes nothing.

mod cluster;
mod objects;

use atrium_shared::settings;

pub(crate) use self::cluster::{Cluster, ClusterError};

/// How organizations are isolated in the cluster.
#[derive(Clone)]
pub(crate) enum Isolation {
    /// No isolation in the cluster, only by the tenant wall.
    None,
    /// One namespace for each organization.
    Kubernetes(Cluster),
}

impl Isolation {
    /// Prepares the isolation that the setting requires.
    ///
    /// # Errors
    /// Returns an error if no configuration of the cluster is found. The cluster need not respond yet.
    pub(crate) async fn prepare(setting: settings::Isolation) -> anyhow::Result<Self> {
        Ok(match setting {
            settings::Isolation::None => Self::None,
            settings::Isolation::Kubernetes => Self::Kubernetes(Cluster::from_environment().await?),
        })
    }
}
