//! Where the deployment asks for it, an organization has its namespace before it is open, and none is left of one that
//! failed or is deleted, whoever dies or is late.

use std::time::Duration;

use atrium_harness::{Atrium, AtriumBuilder};
use atrium_shared::{
    db::Principal,
    ids::SagaId,
    organizations,
    saga::{self, CANCELED},
};

use crate::{
    cluster::{Cluster, Mood},
    platform::{Platform, SYSTEM, Tenant, until},
};

fn isolated(cluster: &Cluster, builder: AtriumBuilder) -> AtriumBuilder {
    builder.setting("ATRIUM_ISOLATION", "kubernetes").setting("KUBECONFIG", &cluster.kubeconfig())
}

async fn status(platform: &Platform, saga: SagaId, status: &str) {
    until(status, async || platform.saga_status(saga).await == status).await;
}

/// The owner cancels.
async fn cancel(platform: &Platform, tenant: Tenant, saga: SagaId) {
    let owner = Principal::User(tenant.user);
    let mut tx = platform.db.org_tx(&owner, tenant.org).await.expect("the owner's transaction");
    assert!(saga::cancel(&mut tx, saga).await.expect("an answer"), "in time");
    tx.commit().await.expect("a commit");
}

async fn failure(platform: &Platform, tenant: Tenant, saga: SagaId) -> String {
    let mut tx = platform.db.operation_tx(tenant.user, saga).await.expect("who asked may look");
    let operation = saga::operation(&mut tx, saga).await.expect("an operation");
    operation.failure.expect("a failure").code
}

#[tokio::test]
async fn an_organization_is_isolated_before_it_is_open_and_leaves_nothing_when_it_is_deleted() {
    let cluster = Cluster::start().await;
    let platform = Platform::start(isolated(&cluster, Atrium::builder())).await;
    let (tenant, saga) = platform.ask_for_organization().await;
    status(&platform, saga, "COMMITTED").await;

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
    assert_eq!(policy["podSelector"], serde_json::json!({}), "every pod");
    assert_eq!(policy["policyTypes"], serde_json::json!(["Ingress", "Egress"]));
    assert!(
        policy.get("ingress").is_none() && policy.get("egress").is_none(),
        "nothing is let through: {policy}"
    );

    let owner = Principal::User(tenant.user);
    let mut tx = platform.db.org_tx(&owner, tenant.org).await.expect("the owner's transaction");
    let deletion = organizations::request_deletion(&mut tx, tenant.user, Duration::from_secs(1))
        .await
        .expect("a deletion");
    tx.commit().await.expect("a commit");
    until("the cluster is told", async || {
        cluster
            .namespace(tenant.org)
            .is_some_and(|found| found.object["metadata"].get("deletionTimestamp").is_some())
    })
    .await;
    // The purge waits for the cluster.
    let waits = "SELECT count(*) FROM saga_steps WHERE name = 'release-namespace' AND status = 'RUNNING' AND attempts > 0";
    until("it waits", async || platform.number(waits).await == 1).await;
    cluster.finishes_removals();
    let purged = format!("SELECT count(*) FROM orgs WHERE id = '{}'", tenant.org);
    until("purged", async || platform.number(&purged).await == 0).await;
    let mut tx = platform.db.user_tx(tenant.user).await.expect("a transaction");
    let certificate = organizations::Certificate::read(&mut tx, deletion).await.expect("a certificate");
    assert_eq!(certificate.certificate.namespaces, "its namespace is gone, with everything that was in it");
}

#[tokio::test]
async fn a_cluster_that_is_away_is_waited_for_and_one_that_refuses_fails_the_creation() {
    let cluster = Cluster::start().await;
    let platform = Platform::start(isolated(&cluster, Atrium::builder())).await;
    cluster.feels(Mood::Unavailable);
    let (tenant, saga) = platform.ask_for_organization().await;
    let tried = "SELECT count(*) FROM saga_steps WHERE name = 'isolation-gate' AND attempts > 0 AND status = 'RUNNING'";
    until("it was tried", async || platform.number(tried).await == 1).await;
    cluster.feels(Mood::Well);
    status(&platform, saga, "COMMITTED").await;
    assert!(cluster.namespace(tenant.org).is_some());

    cluster.feels(Mood::Refusing);
    let (tenant, saga) = platform.ask_for_organization().await;
    status(&platform, saga, "FAILED").await;
    assert_eq!(failure(&platform, tenant, saga).await, "isolation_refused");
    assert!(cluster.namespace(tenant.org).is_none());

    // What somebody else has made is neither taken nor removed.
    cluster.feels(Mood::Well);
    let (_, waiting) = platform.ask_for_organization().await;
    status(&platform, waiting, "COMMITTED").await;
    platform.atrium.worker(0).suspend();
    let (tenant, saga) = platform.ask_for_organization().await;
    cluster.somebody_makes_namespace(tenant.org);
    platform.atrium.worker(0).resume();
    status(&platform, saga, "FAILED").await;
    assert_eq!(failure(&platform, tenant, saga).await, "isolation_refused");
    let theirs = cluster.namespace(tenant.org).expect("it is still there");
    assert_eq!(theirs.object["metadata"]["uid"], "theirs");
    assert!(theirs.contents.is_empty() && theirs.object["metadata"].get("deletionTimestamp").is_none());
}

#[tokio::test]
async fn what_is_canceled_while_the_cluster_works_leaves_no_namespace() {
    let cluster = Cluster::start().await;
    let platform = Platform::start(isolated(&cluster, Atrium::builder().full_workers(2))).await;
    cluster.feels(Mood::Hanging);
    let (tenant, saga) = platform.ask_for_organization().await;
    cluster.changed(0).await;
    cancel(&platform, tenant, saga).await;
    cluster.feels(Mood::Well);
    status(&platform, saga, "FAILED").await;
    assert_eq!(failure(&platform, tenant, saga).await, CANCELED);
    until("removed", async || {
        cluster.finishes_removals();
        cluster.namespace(tenant.org).is_none()
    })
    .await;
    platform.until_all_is_consumed().await;
    cluster.finishes_removals();
    assert!(cluster.namespace(tenant.org).is_none());
}

#[tokio::test]
async fn a_worker_killed_while_the_cluster_works_is_taken_over_from() {
    let cluster = Cluster::start().await;
    let platform = Platform::start(isolated(&cluster, Atrium::builder().full_workers(2))).await;
    cluster.feels(Mood::Hanging);
    let (tenant, saga) = platform.ask_for_organization().await;
    let seen = cluster.changed(0).await;
    // One of them is in the middle of it.
    for worker in 0..2 {
        platform.atrium.worker(worker).restart().await.expect("the worker starts again");
    }
    cluster.changed(seen).await;
    cluster.feels(Mood::Well);
    status(&platform, saga, "COMMITTED").await;
    assert_eq!(cluster.namespace(tenant.org).expect("a namespace").contents.len(), 3);
    let mut tx = platform.db.org_tx(&SYSTEM, tenant.org).await.expect("a transaction");
    let events = saga::events_after(&mut tx, saga, 0).await.expect("events");
    let begun = events.iter().filter(|event| event.step.as_deref() == Some("isolation-gate"));
    let begun: Vec<&str> = begun.map(|event| event.status.as_str()).collect();
    assert_eq!(begun, ["RUNNING", "DONE"], "recorded once");
}
