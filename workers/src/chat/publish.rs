//! Publishes a batch: one script that adds to the live stream, acknowledges and deletes, or does nothing at all.

use atrium_shared::{
    streams::{GROUP, Inbound, Live, Redis, chat_epoch_key, chat_lease_key},
    telemetry::metrics::{CHAT_EVENTS, CHAT_PUBLISH_SECONDS},
};
use metrics::{counter, histogram};
use redis::Script;
use time::OffsetDateTime;

use super::{batch::Batch, lease::Lease, shard::Interrupted};

/// KEYS: inbound, live, lease, epoch. ARGV: token, epoch, group, maximal length, then six for each entry: id, org,
/// project, event (empty: nothing to publish), session, data.
///
/// An entry that is not pending any more was published by somebody before: it is not published again. The lease is
/// the fence: whoever lost it, by a pause or a flush, changes nothing. A script is not taken back when a command in it
/// fails, as `XADD` does when Redis is out of memory: so it publishes first and acknowledges after, and what could
/// not be published stays pending.
const SCRIPT: &str = "
    if redis.call('GET', KEYS[3]) ~= ARGV[1] or redis.call('GET', KEYS[4]) ~= ARGV[2] then return false end
    local published = ''
    for i = 5, #ARGV, 6 do
        local id = ARGV[i]
        if #redis.call('XPENDING', KEYS[1], ARGV[3], id, id, 1) == 1 then
            if ARGV[i + 3] ~= '' then
                published = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'e', ARGV[2], 'org', ARGV[i + 1],
                           'project', ARGV[i + 2], 'event', ARGV[i + 3], 'session', ARGV[i + 4], 'data', ARGV[i + 5])
            end
            redis.call('XACK', KEYS[1], ARGV[3], id)
        end
        redis.call('XDEL', KEYS[1], id)
    end
    return published";

/// Returns the id of the last event published, if there was one.
pub(super) async fn publish(
    redis: &Redis,
    shard: u16,
    lease: &Lease,
    batch: &Batch,
) -> Result<Option<String>, Interrupted> {
    let script = Script::new(SCRIPT);
    let mut call = script.prepare_invoke();
    call.key(Inbound::Chat(shard).to_string())
        .key(Live::Chat(shard).to_string())
        .key(chat_lease_key(shard))
        .key(chat_epoch_key(shard))
        .arg(&lease.token)
        .arg(&lease.epoch)
        .arg(GROUP)
        .arg(Live::Chat(shard).max_length());
    // In the order of the stream, which the grouping by organization has lost.
    let mut entries: Vec<_> =
        batch.items.iter().flat_map(|(org, items)| items.iter().map(move |item| (org, item))).collect();
    entries.sort_unstable_by_key(|(_, item)| item.id);
    for (org, item) in &entries {
        call.arg(item.id.to_string()).arg(org.to_string()).arg(item.project.to_string());
        match &item.event {
            Some(event) => call.arg(event.name).arg(&event.session).arg(&event.data),
            None => call.arg("").arg("").arg(""),
        };
    }
    let published: Option<String> = call.invoke_async(&mut redis.shared()).await?;
    let Some(published) = published else {
        return Err(Interrupted::LostLease);
    };

    let now = OffsetDateTime::now_utc();
    for event in entries.iter().filter_map(|(_, item)| item.event.as_ref()) {
        counter!(CHAT_EVENTS, "event" => event.name).increment(1);
        if let Some(at) = event.at {
            histogram!(CHAT_PUBLISH_SECONDS).record((now - at).as_seconds_f64().max(0.0));
        }
    }
    Ok(Some(published).filter(|id| !id.is_empty()))
}
