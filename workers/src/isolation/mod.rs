//! Isolation of organizations from each other in the cluster: a namespace for each, where the deployment asks for it.
//!
//! The saga that creates an organization makes the namespace before it opens the organization, and removes it when
//! the creation fails; the one that deletes the organization removes it, and certifies that it is gone. Its name and
//! labels are made from the organization's id alone, and everything is applied server-side under one field manager:
//! so making it twice changes nothing.

mod cluster;
mod objects;

use atrium_shared::settings;

pub(crate) use self::cluster::{Cluster, Trouble};

/// How organizations are isolated in the cluster.
#[derive(Clone)]
pub(crate) enum Isolation {
    /// Not at all: by the tenant wall alone.
    None,
    /// By a namespace each.
    Kubernetes(Cluster),
}

impl Isolation {
    /// What the setting asks for.
    ///
    /// # Errors
    /// When nothing says where the cluster is. It need not answer yet.
    pub(crate) async fn prepare(setting: settings::Isolation) -> anyhow::Result<Self> {
        Ok(match setting {
            settings::Isolation::None => Self::None,
            settings::Isolation::Kubernetes => Self::Kubernetes(Cluster::find().await?),
        })
    }
}
