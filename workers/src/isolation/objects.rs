//! The objects that an organization's namespace consists of.

use std::collections::BTreeMap;

use atrium_shared::ids::OrgId;
use k8s_openapi::{
    api::{
        core::v1::{LimitRange, LimitRangeItem, LimitRangeSpec, Namespace, ResourceQuota, ResourceQuotaSpec},
        networking::v1::{NetworkPolicy, NetworkPolicySpec},
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::LabelSelector},
};
use kube::api::ObjectMeta;

/// The label of managed objects. Objects with another value are never changed.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "atrium");
const ORGANIZATION: &str = "atrium.dev/organization";

/// The quota for all pods of an organization together. Services cannot be exposed outside of the cluster; external
/// access requires a gateway.
const QUOTA: [(&str, &str); 8] = [
    ("requests.cpu", "4"),
    ("requests.memory", "8Gi"),
    ("limits.cpu", "8"),
    ("limits.memory", "16Gi"),
    ("pods", "50"),
    ("persistentvolumeclaims", "20"),
    ("services.loadbalancers", "0"),
    ("services.nodeports", "0"),
];
/// The values for a container that does not specify its resources; without them, the quota would reject it.
const DEFAULT_REQUEST: [(&str, &str); 2] = [("cpu", "100m"), ("memory", "128Mi")];
const DEFAULT_LIMIT: [(&str, &str); 2] = [("cpu", "500m"), ("memory", "512Mi")];

/// The namespace's name: constant for an organization, and a DNS label (RFC 1123) of 40 characters.
pub(super) fn name(org: OrgId) -> String {
    format!("org-{org}")
}

fn labels(org: OrgId) -> BTreeMap<String, String> {
    [MANAGED_BY.0, ORGANIZATION]
        .map(str::to_owned)
        .into_iter()
        .zip([MANAGED_BY.1.to_owned(), org.to_string()])
        .collect()
}

/// Whether a namespace of that name is the one that was created for the organization.
pub(super) fn is_ours(namespace: &Namespace, org: OrgId) -> bool {
    let found = namespace.metadata.labels.as_ref();
    found.is_some_and(|found| labels(org).iter().all(|(name, value)| found.get(name) == Some(value)))
}

/// Only pods that cannot access the node are admitted.
pub(super) fn namespace(org: OrgId) -> Namespace {
    let mut labels = labels(org);
    for mode in ["enforce", "audit", "warn"] {
        labels.insert(format!("pod-security.kubernetes.io/{mode}"), "restricted".to_owned());
        // The version is pinned, so that a newer cluster does not reject what an older one accepted.
        labels.insert(format!("pod-security.kubernetes.io/{mode}-version"), "v1.33".to_owned());
    }
    Namespace {
        metadata: ObjectMeta { name: Some(name(org)), labels: Some(labels), ..ObjectMeta::default() },
        ..Namespace::default()
    }
}

/// Denies all traffic in both directions, unless another policy in the namespace allows it.
pub(super) fn network_policy(org: OrgId) -> NetworkPolicy {
    NetworkPolicy {
        metadata: metadata_in_namespace(org, "default-deny"),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector::default()),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ..NetworkPolicySpec::default()
        }),
    }
}

pub(super) fn resource_quota(org: OrgId) -> ResourceQuota {
    ResourceQuota {
        metadata: metadata_in_namespace(org, "organization"),
        spec: Some(ResourceQuotaSpec { hard: Some(quantities(&QUOTA)), ..ResourceQuotaSpec::default() }),
        ..ResourceQuota::default()
    }
}

pub(super) fn limit_range(org: OrgId) -> LimitRange {
    let container = LimitRangeItem {
        type_: "Container".to_owned(),
        default_request: Some(quantities(&DEFAULT_REQUEST)),
        default: Some(quantities(&DEFAULT_LIMIT)),
        ..LimitRangeItem::default()
    };
    LimitRange {
        metadata: metadata_in_namespace(org, "defaults"),
        spec: Some(LimitRangeSpec { limits: vec![container] }),
    }
}

fn metadata_in_namespace(org: OrgId, object: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(object.to_owned()),
        namespace: Some(name(org)),
        labels: Some(labels(org)),
        ..ObjectMeta::default()
    }
}

fn quantities(pairs: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), Quantity((*value).to_owned()))).collect()
}
