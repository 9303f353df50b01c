//! A worker that receives SIGTERM finishes its work in progress, hands over the rest, and exits.

use std::time::Duration;

use atrium_harness::Atrium;
use atrium_shared::messages::ChatAction;

use crate::platform::{TestPlatform, until};

#[tokio::test]
async fn sigterm_under_load_loses_and_repeats_nothing() {
    let mut platform = TestPlatform::start(Atrium::builder().full_workers(2)).await;
    let tenant = platform.tenant().await;
    let mut sagas = Vec::new();
    let mut pressed = Vec::new();
    for round in 0..2 {
        for _ in 0..20 {
            sagas.push(platform.request_organization().await.1);
            pressed.push(platform.press(tenant, ChatAction::Ready).await.to_string());
        }
        let exited = platform.atrium.worker(round).stop(Duration::from_secs(15)).await;
        assert!(exited, "worker {round} had to be killed");
        assert!(platform.atrium.worker(round).status().is_some_and(|status| status.success()));
        platform.atrium.worker(round).respawn().await.expect("the worker starts again");
    }
    for saga in sagas {
        until("COMMITTED", async || platform.saga_status(saga).await == "COMMITTED").await;
    }
    until("all are published", async || platform.published(tenant).await.len() >= pressed.len()).await;
    assert_eq!(platform.published(tenant).await, pressed);
    platform.until_all_is_consumed().await;
}
