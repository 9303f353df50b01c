//! The requests to the cluster: isolating an organization applies four objects, and releasing it deletes its namespace
//! with everything in it.

use std::{fmt::Debug, time::Duration};

use anyhow::Context as _;
use atrium_shared::ids::OrgId;
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Namespace};
use kube::{
    Api, Client, Config, Resource,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};

use super::objects;

/// The field manager of all objects that are applied.
const MANAGER: &str = "atrium";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout of one response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout of all requests of a step.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// The cluster. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cluster(Client);

/// The reason that the cluster did not carry out a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// The request may succeed later.
    #[error("the cluster did not do it: {0}")]
    Transient(#[source] kube::Error),
    /// The cluster did not respond in time.
    #[error("the cluster did not do it in time")]
    TimedOut,
    /// The cluster rejects the object.
    #[error("the cluster refused it: {0}")]
    Rejected(#[source] kube::Error),
    /// The namespace is being removed, and cannot be created again before that is done.
    #[error("the namespace is still being removed")]
    Terminating,
    /// A namespace of that name exists that Atrium did not create. It is left alone.
    #[error("there is a namespace of that name that was not made for the organization")]
    NotOurs,
}

impl From<kube::Error> for ClusterError {
    fn from(error: kube::Error) -> Self {
        match &error {
            // Not 401 and 403, which also occur while a token or a binding is replaced.
            kube::Error::Api(status) if [400, 405, 415, 422].contains(&status.code) => Self::Rejected(error),
            _ => Self::Transient(error),
        }
    }
}

impl Cluster {
    /// Connects to the cluster that this process runs in, or that `KUBECONFIG` names. No request is sent yet.
    pub(super) async fn from_environment() -> anyhow::Result<Self> {
        let mut config = Config::infer().await.context(
            "ATRIUM_ISOLATION=kubernetes, and no cluster is to be found: the process runs in none, and KUBECONFIG \
             names none; for example KUBECONFIG=/etc/atrium/kubeconfig",
        )?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(RESPONSE_TIMEOUT);
        config.write_timeout = Some(RESPONSE_TIMEOUT);
        // The saga retries, and reports that.
        config.default_retry = false;
        Ok(Self(Client::try_from(config).context("the cluster's certificates or keys cannot be used")?))
    }

    /// Creates the organization's namespace and the objects that isolate it, or restores them to their specified state.
    /// The network policy is applied first, before anything could run there.
    pub(crate) async fn isolate(&self, org: OrgId) -> Result<(), ClusterError> {
        in_time(self.apply_all(org)).await
    }

    async fn apply_all(&self, org: OrgId) -> Result<(), ClusterError> {
        let name = objects::name(org);
        match self.namespaces().get_opt(&name).await? {
            Some(namespace) if !objects::is_ours(&namespace, org) => return Err(ClusterError::NotOurs),
            Some(namespace) if namespace.metadata.deletion_timestamp.is_some() => {
                return Err(ClusterError::Terminating);
            }
            _ => {}
        }
        apply(&self.namespaces(), &name, &objects::namespace(org)).await?;
        self.apply_in_namespace(&name, &objects::network_policy(org)).await?;
        self.apply_in_namespace(&name, &objects::resource_quota(org)).await?;
        self.apply_in_namespace(&name, &objects::limit_range(org)).await
    }

    /// Removes the namespace with everything in it. Returns false while the cluster is still removing it, which cannot
    /// be stopped.
    pub(crate) async fn release(&self, org: OrgId) -> Result<bool, ClusterError> {
        in_time(self.delete(org)).await
    }

    async fn delete(&self, org: OrgId) -> Result<bool, ClusterError> {
        let name = objects::name(org);
        let Some(namespace) = self.namespaces().get_opt(&name).await? else {
            return Ok(true);
        };
        if !objects::is_ours(&namespace, org) {
            return Err(ClusterError::NotOurs);
        }
        if namespace.metadata.deletion_timestamp.is_some() {
            return Ok(false);
        }
        // The precondition limits the deletion to this namespace, in case another one was created under its name
        // meanwhile.
        let exact_namespace = Preconditions { uid: namespace.metadata.uid, resource_version: None };
        match self.namespaces().delete(&name, &DeleteParams::default().preconditions(exact_namespace)).await {
            Ok(_) => Ok(false),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn namespaces(&self) -> Api<Namespace> {
        Api::all(self.0.clone())
    }

    async fn apply_in_namespace<K>(&self, namespace: &str, object: &K) -> Result<(), ClusterError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        let name = object.meta().name.clone().unwrap_or_default();
        apply(&Api::<K>::namespaced(self.0.clone(), namespace), &name, object).await
    }
}

async fn in_time<T>(requests: impl Future<Output = Result<T, ClusterError>>) -> Result<T, ClusterError> {
    tokio::time::timeout(STEP_TIMEOUT, requests).await.unwrap_or(Err(ClusterError::TimedOut))
}

/// Applies an object server-side: fields that Atrium specifies are overwritten, even if another manager has changed
/// them; all other fields are left alone.
async fn apply<K>(api: &Api<K>, name: &str, object: &K) -> Result<(), ClusterError>
where
    K: Clone + Debug + DeserializeOwned + Serialize,
{
    api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await?;
    Ok(())
}
