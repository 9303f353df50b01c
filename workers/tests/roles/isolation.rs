//! If the deployment requires isolation, an organization has its namespace before it becomes active, and no namespace
//! remains if its creation fails or it is deleted, even if workers are killed or late.

use std::time::Duration;

use atrium_harness::{Atrium, AtriumBuilder};
use atrium_shared::{
    db::Principal,
    ids::SagaId,
    organizations,
    saga::{self, CANCELED},
};

use crate::{
    cluster::{Behavior, Cluster},
    platform::{SYSTEM, Tenant, TestPlatform, until},
};

fn isolated(cluster: &Cluster, builder: AtriumBuilder) -> AtriumBuilder {
    builder.setting("ATRIUM_ISOLATION", "kubernetes").setting("KUBECONFIG", &cluster.kubeconfig())
}

async fn until_status(platform: &TestPlatform, saga: SagaId, status: &str) {
    until(status, async || platform.saga_status(saga).await == status).await;
}

/// Cancels the creation as the owner.
async fn cancel(platform: &TestPlatform, tenant: Tenant, saga: SagaId) {
    let owner = Principal::User(tenant.user);
    let mut tx = platform.db.org_tx(&owner, tenant.org).await.expect("the owner's transaction");
    assert!(saga::cancel(&mut tx, saga).await.expect("an answer"), "the creation can still be canceled");
    tx.commit().await.expect("a commit");
}

async fn failure(platform: &TestPlatform, tenant: Tenant, saga: SagaId) -> String {
    let mut tx = platform.db.operation_tx(tenant.user, saga).await.expect("the founder may read it");
    let operation = saga::operation(&mut tx, saga).await.expect("an operation");
    operation.failure.expect("a failure").code
}

#[tokio::test]
async fn an_organization_has_a_namespace_before_it_is_active_and_none_after_its_deletion() {
    let cluster = Cluster::start().await;
    let platform = TestPlatform::start(isolated(&cluster, Atrium::builder())).await;
    let (tenant, saga) = platform.request_organization().await;
    until_status(&platform, saga, "COMMITTED").await;

    let namespace = cluster.namespace(tenant.org).expect("a namespace");
    let labels = &namespace.object["metadata"]["labels"];
    assert_eq!(labels["atrium.dev/organization"], tenant.org.to_string());
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
    let contents: Vec<&str> = namespace.contents.keys().map(String::as_str).collect();
    assert_eq!(
        contents,
        ["limitranges/defaults", "networkpolicies/default-deny", "resourcequotas/organization"]
    );
    let policy = &namespace.contents["networkpolicies/default-deny"]["spec"];
    assert_eq!(policy["podSelector"], serde_json::json!({}), "the policy selects every pod");
    assert_eq!(policy["policyTypes"], serde_json::json!(["Ingress", "Egress"]));
    assert!(
        policy.get("ingress").is_none() && policy.get("egress").is_none(),
        "no traffic is allowed: {policy}"
    );

    let owner = Principal::User(tenant.user);
    let mut tx = platform.db.org_tx(&owner, tenant.org).await.expect("the owner's transaction");
    let deletion = organizations::request_deletion(&mut tx, tenant.user, Duration::from_secs(1))
        .await
        .expect("a deletion");
    tx.commit().await.expect("a commit");
    until("the deletion of the namespace is requested", async || {
        cluster
            .namespace(tenant.org)
            .is_some_and(|found| found.object["metadata"].get("deletionTimestamp").is_some())
    })
    .await;
    // The purge waits until the cluster has removed the namespace.
    let waiting = "SELECT count(*) FROM saga_steps WHERE name = 'release-namespace' AND status = 'RUNNING' AND attempts > 0";
    until("the step waits", async || platform.query_i64(waiting).await == 1).await;
    cluster.finish_deletions();
    let purged = format!("SELECT count(*) FROM orgs WHERE id = '{}'", tenant.org);
    until("the organization is purged", async || platform.query_i64(&purged).await == 0).await;
    let mut tx = platform.db.user_tx(tenant.user).await.expect("a transaction");
    let certificate = organizations::Certificate::read(&mut tx, deletion).await.expect("a certificate");
    assert_eq!(certificate.certificate.namespaces, "its namespace is gone, with everything that was in it");
}

#[tokio::test]
async fn an_unavailable_cluster_is_retried_and_a_rejection_fails_the_creation() {
    let cluster = Cluster::start().await;
    let platform = TestPlatform::start(isolated(&cluster, Atrium::builder())).await;
    cluster.set_behavior(Behavior::Unavailable);
    let (tenant, saga) = platform.request_organization().await;
    let tried = "SELECT count(*) FROM saga_steps WHERE name = 'isolation-gate' AND attempts > 0 AND status = 'RUNNING'";
    until("the step was tried", async || platform.query_i64(tried).await == 1).await;
    cluster.set_behavior(Behavior::Normal);
    until_status(&platform, saga, "COMMITTED").await;
    assert!(cluster.namespace(tenant.org).is_some());

    cluster.set_behavior(Behavior::Rejecting);
    let (tenant, saga) = platform.request_organization().await;
    until_status(&platform, saga, "FAILED").await;
    assert_eq!(failure(&platform, tenant, saga).await, "isolation_refused");
    assert!(cluster.namespace(tenant.org).is_none());

    // A namespace that Atrium did not create is neither used nor removed.
    cluster.set_behavior(Behavior::Normal);
    let (_, waiting) = platform.request_organization().await;
    until_status(&platform, waiting, "COMMITTED").await;
    platform.atrium.worker(0).suspend();
    let (tenant, saga) = platform.request_organization().await;
    cluster.create_foreign_namespace(tenant.org);
    platform.atrium.worker(0).resume();
    until_status(&platform, saga, "FAILED").await;
    assert_eq!(failure(&platform, tenant, saga).await, "isolation_refused");
    let foreign = cluster.namespace(tenant.org).expect("it is still there");
    assert_eq!(foreign.object["metadata"]["uid"], "theirs");
    assert!(foreign.contents.is_empty() && foreign.object["metadata"].get("deletionTimestamp").is_none());
}

#[tokio::test]
async fn a_creation_canceled_while_the_cluster_works_leaves_no_namespace() {
    let cluster = Cluster::start().await;
    let platform = TestPlatform::start(isolated(&cluster, Atrium::builder().full_workers(2))).await;
    cluster.set_behavior(Behavior::Hanging);
    let (tenant, saga) = platform.request_organization().await;
    cluster.next_change(0).await;
    cancel(&platform, tenant, saga).await;
    cluster.set_behavior(Behavior::Normal);
    until_status(&platform, saga, "FAILED").await;
    assert_eq!(failure(&platform, tenant, saga).await, CANCELED);
    until("the namespace is removed", async || {
        cluster.finish_deletions();
        cluster.namespace(tenant.org).is_none()
    })
    .await;
    platform.until_all_is_consumed().await;
    cluster.finish_deletions();
    assert!(cluster.namespace(tenant.org).is_none());
}

#[tokio::test]
async fn another_worker_continues_a_step_whose_worker_was_killed() {
    let cluster = Cluster::start().await;
    let platform = TestPlatform::start(isolated(&cluster, Atrium::builder().full_workers(2))).await;
    cluster.set_behavior(Behavior::Hanging);
    let (tenant, saga) = platform.request_organization().await;
    let seen = cluster.next_change(0).await;
    // One of the two workers is performing the step.
    for worker in 0..2 {
        platform.atrium.worker(worker).restart().await.expect("the worker starts again");
    }
    cluster.next_change(seen).await;
    cluster.set_behavior(Behavior::Normal);
    until_status(&platform, saga, "COMMITTED").await;
    assert_eq!(cluster.namespace(tenant.org).expect("a namespace").contents.len(), 3);
    let mut tx = platform.db.org_tx(&SYSTEM, tenant.org).await.expect("a transaction");
    let events = saga::events_after(&mut tx, saga, 0).await.expect("events");
    let statuses = events.iter().filter(|event| event.step.as_deref() == Some("isolation-gate"));
    let statuses: Vec<&str> = statuses.map(|event| event.status.as_str()).collect();
    assert_eq!(statuses, ["RUNNING", "DONE"], "each status is recorded once");
}
