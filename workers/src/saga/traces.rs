//! Searches and removes the traces of an organization in Redis. A trace is a key, field, value or entry under Atrium's
//! prefix that contains the organization's id.
//!
//! All content is searched, not a list of known keys, so that what a later release writes is found as well. Traces are
//! removed, except for entries that wait for a worker: the worker that handles such an entry removes it.

use atrium_shared::{
    ids::OrgId,
    streams::{Inbound, Redis},
};
use redis::{AsyncCommands as _, RedisError, RedisResult, ServerErrorKind, aio::ConnectionManager};

const KEYS: &str = "atrium:*";
/// The number of keys, or entries of a stream, that one command reads.
const PAGE: usize = 500;

/// The result of a search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Search {
    /// The number of keys that were searched.
    pub(super) keys: u64,
    /// The number of traces that were found, whether or not they were removed.
    pub(super) found: u64,
}

/// Searches all keys, and removes the traces that it may remove. The stream of sagas is not searched, because it
/// contains the message that is being handled, and because its messages are acknowledged without effect once the
/// organization is purged.
pub(super) async fn remove(redis: &Redis, org: OrgId) -> RedisResult<Search> {
    let mut connection = redis.shared();
    let name = org.to_string();
    let mut search = Search::default();
    let mut cursor = 0_u64;
    loop {
        let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(KEYS)
            .arg("COUNT")
            .arg(PAGE)
            .query_async(&mut connection)
            .await?;
        for key in keys.into_iter().filter(|key| *key != Inbound::Saga.to_string()) {
            search.keys += 1;
            search.found += in_key(&mut connection, &key, &name).await?;
        }
        cursor = next;
        if cursor == 0 {
            return Ok(search);
        }
    }
}

/// Removes the traces in one key, except entries that wait for a worker. Returns the number of traces found.
async fn in_key(connection: &mut ConnectionManager, key: &str, name: &str) -> RedisResult<u64> {
    if key.contains(name) {
        return connection.unlink(key).await;
    }
    let kind: String = redis::cmd("TYPE").arg(key).query_async(connection).await?;
    match kind.as_str() {
        // The key has expired since it was listed.
        "none" => Ok(0),
        "string" => {
            let value: Option<Vec<u8>> = connection.get(key).await?;
            if value.is_some_and(|value| contains(&value, name)) {
                connection.unlink(key).await
            } else {
                Ok(0)
            }
        }
        "hash" => {
            let pairs: Vec<(Vec<u8>, Vec<u8>)> = connection.hgetall(key).await?;
            let traces =
                pairs.into_iter().filter(|(field, value)| contains(field, name) || contains(value, name));
            let fields: Vec<Vec<u8>> = traces.map(|(field, _)| field).collect();
            if fields.is_empty() { Ok(0) } else { connection.hdel(key, fields).await }
        }
        "zset" => {
            let members: Vec<Vec<u8>> = connection.zrange(key, 0, -1).await?;
            let traces: Vec<Vec<u8>> = members.into_iter().filter(|member| contains(member, name)).collect();
            if traces.is_empty() { Ok(0) } else { connection.zrem(key, traces).await }
        }
        "stream" => in_stream(connection, key, name).await,
        other => Err(RedisError::from((
            ServerErrorKind::ResponseError.into(),
            "a key of a type that is not searched",
            format!("{key} is a {other}"),
        ))),
    }
}

async fn in_stream(connection: &mut ConnectionManager, key: &str, name: &str) -> RedisResult<u64> {
    let waits_for_a_worker = Inbound::all().any(|stream| stream.to_string() == key);
    let (mut found, mut from) = (0, "-".to_owned());
    loop {
        let entries: Vec<(String, Vec<Vec<u8>>)> = connection.xrange_count(key, &from, "+", PAGE).await?;
        let Some((last, _)) = entries.last() else {
            return Ok(found);
        };
        from = format!("({last}");
        let traces: Vec<&String> = entries
            .iter()
            .filter(|(_, fields)| fields.iter().any(|field| contains(field, name)))
            .map(|(id, _)| id)
            .collect();
        found += traces.len() as u64;
        if !traces.is_empty() && !waits_for_a_worker {
            let _: u64 = connection.xdel(key, &traces).await?;
        }
    }
}

fn contains(value: &[u8], name: &str) -> bool {
    value.windows(name.len()).any(|window| window == name.as_bytes())
}
