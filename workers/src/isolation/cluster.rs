//! The requests to the cluster: four objects are applied, one is deleted with everything in it.

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

/// The field manager of everything that is applied.
const MANAGER: &str = "atrium";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long all requests of a step may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The cluster. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cluster(Client);

/// Why the cluster did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// It may do it later.
    #[error("the cluster did not do it: {0}")]
    Transient(#[source] kube::Error),
    /// It has not said anything for long.
    #[error("the cluster did not do it in time")]
    Late,
    /// It does not take what it is given.
    #[error("the cluster refused it: {0}")]
    Refused(#[source] kube::Error),
    /// The namespace is on its way out; it cannot be had again before it is gone.
    #[error("the namespace is still being removed")]
    Terminating,
    /// A namespace of that name was made by somebody else, and is left alone.
    #[error("there is a namespace of that name that was not made for the organization")]
    NotOurs,
}

impl From<kube::Error> for Trouble {
    fn from(error: kube::Error) -> Self {
        match &error {
            // Not 401 and 403: a token or a binding that is being exchanged.
            kube::Error::Api(status) if [400, 405, 415, 422].contains(&status.code) => Self::Refused(error),
            _ => Self::Transient(error),
        }
    }
}

impl Cluster {
    /// The cluster that this process runs in, or that `KUBECONFIG` names.
    pub(super) async fn find() -> anyhow::Result<Self> {
        let mut config = Config::infer().await.context(
            "ATRIUM_ISOLATION=kubernetes, and no cluster is to be found: the process runs in none, and KUBECONFIG \
             names none; for example KUBECONFIG=/etc/atrium/kubeconfig",
        )?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(ANSWER_TIMEOUT);
        config.write_timeout = Some(ANSWER_TIMEOUT);
        // The saga tries again, and says so.
        config.default_retry = false;
        Ok(Self(Client::try_from(config).context("the cluster's certificates or keys cannot be used")?))
    }

    /// Makes the organization's namespace and what isolates it, or brings it back to what it should be. The policy
    /// comes before everything that could run there.
    pub(crate) async fn isolate(&self, org: OrgId) -> Result<(), Trouble> {
        in_time(self.apply_all(org)).await
    }

    async fn apply_all(&self, org: OrgId) -> Result<(), Trouble> {
        let name = objects::name(org);
        match self.namespaces().get_opt(&name).await? {
            Some(namespace) if !objects::is_ours(&namespace, org) => return Err(Trouble::NotOurs),
            Some(namespace) if namespace.metadata.deletion_timestamp.is_some() => {
                return Err(Trouble::Terminating);
            }
            _ => {}
        }
        apply(&self.namespaces(), &name, &objects::namespace(org)).await?;
        self.apply_inside(&name, &objects::network_policy(org)).await?;
        self.apply_inside(&name, &objects::resource_quota(org)).await?;
        self.apply_inside(&name, &objects::limit_range(org)).await
    }

    /// Removes the namespace with everything in it. False: the cluster has begun, and will not stop before it is done.
    pub(crate) async fn release(&self, org: OrgId) -> Result<bool, Trouble> {
        in_time(self.delete(org)).await
    }

    async fn delete(&self, org: OrgId) -> Result<bool, Trouble> {
        let name = objects::name(org);
        let Some(namespace) = self.namespaces().get_opt(&name).await? else {
            return Ok(true);
        };
        if !objects::is_ours(&namespace, org) {
            return Err(Trouble::NotOurs);
        }
        if namespace.metadata.deletion_timestamp.is_some() {
            return Ok(false);
        }
        // This one, and not one that somebody made under its name meanwhile.
        let this = Preconditions { uid: namespace.metadata.uid, resource_version: None };
        match self.namespaces().delete(&name, &DeleteParams::default().preconditions(this)).await {
            Ok(_) => Ok(false),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn namespaces(&self) -> Api<Namespace> {
        Api::all(self.0.clone())
    }

    async fn apply_inside<K>(&self, namespace: &str, object: &K) -> Result<(), Trouble>
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

async fn in_time<T>(requests: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    tokio::time::timeout(LIMIT, requests).await.unwrap_or(Err(Trouble::Late))
}

/// Server-side apply: fields that are ours are as we say, whoever changed them; all others are left alone.
async fn apply<K>(api: &Api<K>, name: &str, object: &K) -> Result<(), Trouble>
where
    K: Clone + Debug + DeserializeOwned + Serialize,
{
    api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await?;
    Ok(())
}
