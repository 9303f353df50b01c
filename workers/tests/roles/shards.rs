//! Processes start, stop and crash under load: shards are divided evenly, and nothing is lost, duplicated or reordered.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use atrium_harness::Atrium;
use atrium_shared::{
    ids::OrgId,
    messages::{ChatAction, RevisionNotice},
    streams::{CHAT_SHARDS, Inbound, chat_lease_key},
};
use redis::AsyncCommands as _;
use uuid::Uuid;

use crate::{
    platform::{SYSTEM, Tenant, TestPlatform, until},
    relay,
};

const ROLES: &str = "relay,chat";
const AGGREGATES: usize = 12;

/// The sent messages by aggregate, which no worker consumes here, and the sent actions by project, each in order.
#[derive(Default)]
struct Load {
    messages: BTreeMap<Uuid, Vec<String>>,
    actions: Vec<Vec<String>>,
}

#[tokio::test]
async fn shards_are_divided_and_order_is_kept_while_processes_start_stop_and_crash() {
    let mut platform = TestPlatform::start(Atrium::builder().workers([ROLES, "saga"])).await;
    let mut tenants = Vec::new();
    for _ in 0..3 {
        tenants.push(platform.tenant().await);
    }
    let platform = Arc::new(tokio::sync::RwLock::new(platform));
    let (stop, load) = start_load(&platform, &tenants);

    for _ in 0..3 {
        platform.write().await.atrium.add_worker(Some(ROLES)).await;
    }
    until_divided(&platform, &[2, 2, 2, 2]).await;
    for worker in [0, 2, 3] {
        let platform = platform.read().await;
        assert!(
            platform.atrium.worker(worker).stop(Duration::from_secs(15)).await,
            "worker {worker} had to be killed"
        );
    }
    until_divided(&platform, &[8]).await;
    stop.store(true, Ordering::Relaxed);
    let sent = load.await.expect("the load");
    let locked_platform = platform.read().await;
    until_published(&locked_platform, &tenants, &sent).await;
    assert_eq!(read_stream(&locked_platform, &sent).await, sent.messages, "each is published once, in order");
    drop(locked_platform);

    // A worker that is killed releases no lease, and messages may be published twice, but in order.
    let (stop, load) = start_load(&platform, &tenants);
    platform.read().await.atrium.worker(0).respawn().await.expect("it starts again");
    until_divided(&platform, &[4, 4]).await;
    platform.read().await.atrium.worker(0).sigkill().await;
    until_divided(&platform, &[8]).await;
    stop.store(true, Ordering::Relaxed);
    let mut second_load = load.await.expect("the load");
    for (actions, before) in second_load.actions.iter_mut().zip(sent.actions) {
        actions.splice(..0, before);
    }
    let platform = platform.read().await;
    until_published(&platform, &tenants, &second_load).await;
    let mut arrived = read_stream(&platform, &second_load).await;
    for messages in arrived.values_mut() {
        let mut seen = std::collections::BTreeSet::new();
        messages.retain(|message| seen.insert(message.clone()));
    }
    assert_eq!(arrived, second_load.messages, "all are published, in order");
}

/// Sends messages and actions until the returned flag is set.
fn start_load(
    platform: &Arc<tokio::sync::RwLock<TestPlatform>>,
    tenants: &[Tenant],
) -> (Arc<AtomicBool>, tokio::task::JoinHandle<Load>) {
    let (stop, platform, tenants) =
        (Arc::new(AtomicBool::new(false)), Arc::clone(platform), tenants.to_vec());
    let stopped = Arc::clone(&stop);
    let load = tokio::spawn(async move {
        let mut load = Load { actions: vec![Vec::new(); tenants.len()], ..Load::default() };
        let aggregates: Vec<Uuid> = (0..AGGREGATES).map(|_| Uuid::now_v7()).collect();
        while !stopped.load(Ordering::Relaxed) {
            let (db, redis) = {
                let platform = platform.read().await;
                (platform.db.clone(), platform.redis.clone())
            };
            let mut tx = db.org_tx(&SYSTEM, tenants[0].org).await.expect("a transaction");
            for aggregate in &aggregates {
                let message = tx
                    .enqueue(OrgId::from(*aggregate), &RevisionNotice { revision: 0 })
                    .await
                    .expect("a message")
                    .to_string();
                load.messages.entry(*aggregate).or_default().push(message);
            }
            tx.commit().await.expect("a commit");
            for (tenant, actions) in tenants.iter().zip(&mut load.actions) {
                actions.push(TestPlatform::press_on(&redis, *tenant, ChatAction::Ready).await.to_string());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        load
    });
    (stop, load)
}

/// Waits until the processes of both roles own these numbers of shards, in ascending order.
async fn until_divided(platform: &tokio::sync::RwLock<TestPlatform>, counts: &[i64]) {
    let platform = platform.read().await;
    until("the relay's shards are divided", async || relay::shards_by_owner(&platform).await == counts).await;
    until("the chat's shards are divided", async || chat_shards_by_owner(&platform).await == counts).await;
}

async fn chat_shards_by_owner(platform: &TestPlatform) -> Vec<i64> {
    let mut owners: BTreeMap<String, i64> = BTreeMap::new();
    for shard in 0..CHAT_SHARDS {
        let token: Option<String> =
            platform.redis.clone().get(chat_lease_key(shard)).await.expect("a lease or none");
        if let Some((process, _)) = token.as_deref().and_then(|token| token.split_once('/')) {
            *owners.entry(process.to_owned()).or_default() += 1;
        }
    }
    let mut counts: Vec<i64> = owners.into_values().collect();
    counts.sort_unstable();
    counts
}

async fn until_published(platform: &TestPlatform, tenants: &[Tenant], sent: &Load) {
    let waiting = "SELECT count(*) FROM outbox WHERE topic = 'config' AND published_at IS NULL";
    until("all messages are published", async || platform.query_i64(waiting).await == 0).await;
    for (tenant, actions) in tenants.iter().zip(&sent.actions) {
        until("all actions are published", async || platform.published(*tenant).await.len() >= actions.len())
            .await;
        assert_eq!(platform.published(*tenant).await, *actions, "each is published once, in order");
    }
}

/// Returns the sent messages as they are on the stream, by aggregate, in the order of the stream.
async fn read_stream(platform: &TestPlatform, sent: &Load) -> BTreeMap<Uuid, Vec<String>> {
    let aggregate_of: BTreeMap<&String, Uuid> = sent
        .messages
        .iter()
        .flat_map(|(aggregate, messages)| messages.iter().map(move |message| (message, *aggregate)))
        .collect();
    let reply: redis::streams::StreamRangeReply =
        platform.redis.clone().xrange_all(Inbound::Config.to_string()).await.expect("a stream");
    let mut arrived: BTreeMap<Uuid, Vec<String>> = BTreeMap::new();
    for message in reply.ids.iter().filter_map(|entry| entry.get::<String>("message")) {
        if let Some(aggregate) = aggregate_of.get(&message) {
            arrived.entry(*aggregate).or_default().push(message);
        }
    }
    arrived
}
