//! Canceling operations: an owner of the organization can cancel until the pivot.

use atrium_harness::{Atrium, TiedRace, service::Service};
use atrium_shared::{
    audit::Action,
    saga::{self, SagaKind},
};
use serde_json::json;

use crate::{CheckedSend as _, PATIENCE, failed_creation};

#[tokio::test]
async fn a_canceled_creation_leaves_nothing() {
    // No worker runs sagas yet, so the creation does not start.
    let mut atrium = Atrium::builder().workers(["relay"]).start().await;
    let (founder, stranger) = (atrium.guest().await, atrium.guest().await);
    let created = founder.create_organization("Northwind").await.unwrap();
    let operation = format!("/v1/operations/{}", created.operation);
    let cancel = || founder.client.post(format!("{operation}/cancel"));

    stranger.client.post(format!("{operation}/cancel")).refused(404, "not_found").await;
    for _ in 0..2 {
        let canceled = cancel().answers(202).await;
        assert_eq!((canceled.at("/status"), canceled.at("/failure/code")), canceled_with("COMPENSATING"));
    }
    atrium.add_worker(Some("saga")).await;
    let mut progress = founder.client.events(&format!("{operation}/events"), None).await.unwrap();
    let finished = progress.must_see("operation.finished", PATIENCE).await.json();
    assert_eq!(
        (finished["status"].as_str(), finished["failure"]["code"].as_str()),
        (Some("FAILED"), Some(saga::CANCELED))
    );
    founder.client.get(format!("/v1/orgs/{}", created.org)).refused(404, "not_found").await;
    // The organization no longer has members, but its founder still gets the same response.
    assert_eq!(cancel().answers(202).await.at("/status"), "FAILED");
    let again = founder.create_organization("Northwind").await.unwrap();
    founder.committed(&again.operation).await.unwrap();
}

fn canceled_with(status: &str) -> (String, String) {
    (status.to_owned(), saga::CANCELED.to_owned())
}

#[tokio::test]
async fn ended_operations_cannot_be_canceled_and_deletions_can_by_an_owner() {
    let atrium = Atrium::builder().default_value("saga.fail_step", json!("")).start().await;
    let owner = atrium.guest().await;
    let created = owner.create_organization("Northwind").await.unwrap();
    owner.committed(&created.operation).await.unwrap();
    let cancel = format!("/v1/operations/{}/cancel", created.operation);
    owner.client.post(&cancel).refused(409, "operation_not_cancelable").await;
    let admin = owner.invite_guest(&created.org, "admin").await.unwrap();
    admin.client.post(&cancel).refused(403, "forbidden").await;

    let deletion =
        owner.client.delete(format!("/v1/orgs/{}", created.org)).answers(202).await.at("/operation_id");
    let cancel = format!("/v1/operations/{deletion}/cancel");
    admin.client.post(&cancel).refused(403, "forbidden").await;
    owner.client.post(&cancel).answers(202).await;
    let mut progress = owner.client.events(&format!("/v1/operations/{deletion}/events"), None).await.unwrap();
    assert_eq!(progress.must_see("operation.finished", PATIENCE).await.json()["status"], "FAILED");
    let organization = owner.client.get(format!("/v1/orgs/{}", created.org)).answers(200).await;
    assert_eq!(organization.at("/status"), "COMMITTED");
    let audit = owner.client.get(format!("/v1/orgs/{}/audit?limit=1", created.org)).answers(200).await;
    assert_eq!(audit.at("/items/0/action"), Action::OperationCanceled.name());
    assert_eq!(audit.at("/items/0/after/kind"), SagaKind::DeleteOrganization.name());

    // A creation that failed without a cancel cannot be canceled.
    atrium
        .set_default("saga.fail_step", json!(format!("{}/commit", SagaKind::CreateOrganization.name())))
        .await;
    let failed = failed_creation(&owner).await;
    let cancel = format!("/v1/operations/{}/cancel", failed.operation);
    owner.client.post(cancel).refused(409, "operation_not_cancelable").await;
}

#[tokio::test]
async fn a_cancel_racing_the_commit_reports_the_final_status() {
    let atrium = Atrium::builder().full_workers(2).start().await;
    let owner = atrium.guest().await;
    let workers = [atrium.worker(0), atrium.worker(1)];
    let mut race = TiedRace::default();
    for _ in 0..40 {
        workers.into_iter().for_each(Service::suspend);
        let created = owner.create_organization("Northwind").await.unwrap();
        let cancel = owner.client.post(format!("/v1/operations/{}/cancel", created.operation));
        let (response, _) =
            race.run(cancel.send(), async { workers.into_iter().for_each(Service::resume) }).await;
        let response = response.unwrap();
        let operation = format!("/v1/operations/{}", created.operation);
        let mut progress = owner.client.events(&format!("{operation}/events"), None).await.unwrap();
        let finished = progress.must_see("operation.finished", PATIENCE).await.json();
        let organization = owner.client.get(format!("/v1/orgs/{}", created.org));
        match response.status.as_u16() {
            202 => {
                assert_eq!(finished["status"], "FAILED");
                organization.refused(404, "not_found").await;
            }
            409 => {
                assert_eq!(finished["status"], "COMMITTED");
                organization.answers(200).await;
            }
            _ => panic!("{}", response.describe()),
        }
        race.ended(response.code() == 202);
    }
    race.was_open();
}
