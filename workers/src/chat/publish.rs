//! Publishes a batch with one script, which adds to the live stream, acknowledges and deletes, or does nothing if the
//! lease was lost.

use atrium_shared::{
    clock,
    messages::{LiveChatEntry, StreamEntry as _},
    streams::{GROUP, Inbound, Live, Redis, chat_epoch_key, chat_lease_key, lua},
    telemetry::metrics::{CHAT_EVENTS, CHAT_PUBLISH_SECONDS},
};
use metrics::{counter, histogram};

use super::{batch::Batch, interrupted::Interrupted, lease::Lease};

/// Returns the id of the last published event, or `None` if the batch had no events.
pub(super) async fn publish(
    redis: &Redis,
    shard: u16,
    lease: &Lease,
    batch: &Batch,
) -> Result<Option<String>, Interrupted> {
    let mut call = lua::CHAT_PUBLISH.prepare_invoke();
    call.key(Inbound::Chat(shard).to_string())
        .key(Live::Chat(shard).to_string())
        .key(chat_lease_key(shard))
        .key(chat_epoch_key(shard))
        .arg(&lease.token)
        .arg(&lease.epoch)
        .arg(GROUP)
        .arg(Live::Chat(shard).max_length());
    // Restores the order of the stream, because the batch is grouped by organization.
    let mut entries: Vec<_> =
        batch.items.iter().flat_map(|(org, items)| items.iter().map(move |item| (org, item))).collect();
    entries.sort_unstable_by_key(|(_, item)| item.id);
    for (org, item) in &entries {
        call.arg(item.id.to_string());
        let Some(event) = &item.event else {
            call.arg(0);
            continue;
        };
        let entry = LiveChatEntry {
            epoch: lease.epoch.clone(),
            org: **org,
            project: item.project,
            event: event.name.to_owned(),
            session: event.session,
            data: event.data.clone(),
        };
        let fields =
            entry.to_fields().map_err(|error| redis::RedisError::from(std::io::Error::from(error)))?;
        call.arg(fields.len() * 2).arg(fields);
    }
    let published: Option<String> = call.invoke_async(&mut redis.shared()).await?;
    let Some(published) = published else {
        return Err(Interrupted::LostLease);
    };

    let now = clock::now();
    for event in entries.iter().filter_map(|(_, item)| item.event.as_ref()) {
        counter!(CHAT_EVENTS, "event" => event.name).increment(1);
        histogram!(CHAT_PUBLISH_SECONDS).record((now - event.at).as_seconds_f64().max(0.0));
    }
    Ok(Some(published).filter(|id| !id.is_empty()))
}
