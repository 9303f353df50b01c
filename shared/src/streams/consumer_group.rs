//! Reading an inbound stream as one of a group: every entry goes to one consumer, and stays *pending* in its name
//! until it is acknowledged. What a dead consumer left pending is claimed by the others.

use std::{collections::HashMap, time::Duration};

use redis::{
    AsyncCommands as _, ErrorKind, RedisResult, Script,
    aio::MultiplexedConnection,
    streams::{
        StreamAutoClaimOptions, StreamAutoClaimReply, StreamPendingCountReply, StreamReadOptions,
        StreamReadReply,
    },
};

use super::{
    GROUP, Inbound, Redis, StreamId,
    client::{BLOCK, is_missing_group},
    tail::text_fields,
};

/// An entry to work on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id in the stream.
    pub id: StreamId,
    /// Its fields; one that is not UTF-8 is left out.
    pub fields: HashMap<String, String>,
}

impl Entry {
    fn decode(entry: redis::streams::StreamId) -> Option<Self> {
        Some(Self { id: entry.id.parse().ok()?, fields: text_fields(entry.map) })
    }
}

/// One consumer of an inbound stream, with a connection of its own.
pub struct ConsumerGroup {
    redis: Redis,
    stream: Inbound,
    consumer: String,
    connection: Option<MultiplexedConnection>,
    claim_cursor: String,
}

impl ConsumerGroup {
    /// A consumer of `stream`; `consumer` must be unique among the processes that run.
    #[must_use]
    pub fn new(redis: Redis, stream: Inbound, consumer: &str) -> Self {
        Self {
            redis,
            stream,
            consumer: consumer.to_owned(),
            connection: None,
            claim_cursor: "0-0".to_owned(),
        }
    }

    /// What ends the entries that this consumer reads.
    #[must_use]
    pub fn acknowledger(&self) -> Acknowledger {
        Acknowledger { redis: self.redis.clone(), stream: self.stream }
    }

    /// Waits up to a second for at most `count` entries that nobody was given yet.
    ///
    /// # Errors
    /// When Redis is away; the next call connects again. A group that Redis lost is made again here.
    pub async fn read(&mut self, count: usize) -> RedisResult<Vec<Entry>> {
        let block = usize::try_from(BLOCK.as_millis()).unwrap_or(1000);
        let options = StreamReadOptions::default().group(GROUP, &self.consumer).count(count).block(block);
        let stream = self.stream.to_string();
        let mut connection = self.connect().await?;
        let reply: RedisResult<Option<StreamReadReply>> =
            connection.xread_options(&[&stream], &[">"], &options).await;
        let reply = self.keep(connection, reply)?;
        let entries = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids);
        Ok(entries.filter_map(Entry::decode).collect())
    }

    /// Takes over at most `count` entries that somebody was given longer than `idle` ago and has not acknowledged.
    ///
    /// `XAUTOCLAIM` looks at a bounded part of the pending entries; the cursor it returns is carried from call to
    /// call, or the rest would never be looked at.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn claim(&mut self, idle: Duration, count: usize) -> RedisResult<Vec<Entry>> {
        let idle = usize::try_from(idle.as_millis()).unwrap_or(usize::MAX);
        let options = StreamAutoClaimOptions::default().count(count);
        let stream = self.stream.to_string();
        let cursor = std::mem::replace(&mut self.claim_cursor, "0-0".to_owned());
        let mut connection = self.connect().await?;
        let reply: RedisResult<StreamAutoClaimReply> =
            connection.xautoclaim_options(&stream, GROUP, &self.consumer, idle, &cursor, options).await;
        let reply = self.keep(connection, reply)?;
        self.claim_cursor = reply.next_stream_id;
        // Entries trimmed away while pending come without fields; Redis has dropped them from the list itself.
        let entries = reply.claimed.into_iter().filter(|entry| !entry.map.is_empty());
        Ok(entries.filter_map(Entry::decode).collect())
    }

    /// Removes consumers that have been silent longer than `idle` and have nothing pending, so that restarts do
    /// not fill the group. A consumer removed with entries pending would take them with it, hence one script.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn forget_silent_consumers(&mut self, idle: Duration) -> RedisResult<usize> {
        let script = Script::new(
            "local removed = 0
             for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
                 local info = {}
                 for i = 1, #consumer, 2 do info[consumer[i]] = consumer[i + 1] end
                 if info.pending == 0 and info.idle > tonumber(ARGV[2]) then
                     redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], info.name)
                     removed = removed + 1
                 end
             end
             return removed",
        );
        let mut connection = self.connect().await?;
        let reply = script
            .key(self.stream.to_string())
            .arg(GROUP)
            .arg(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX))
            .invoke_async(&mut connection)
            .await;
        self.keep(connection, reply)
    }

    /// The connection, made anew where needed, with the group in place. It begins at `0`: at `$` it would skip what
    /// was published before the group existed.
    async fn connect(&mut self) -> RedisResult<MultiplexedConnection> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let mut connection = self.redis.dedicated().await?;
        let made: RedisResult<()> =
            connection.xgroup_create_mkstream(self.stream.to_string(), GROUP, "0").await;
        match made {
            Err(error) if error.code() != Some("BUSYGROUP") => Err(error),
            _ => Ok(connection),
        }
    }

    /// Keeps a healthy connection. After an error that leaves the connection in doubt, or a missing group, the next
    /// call begins with a new connection and makes sure of the group.
    fn keep<T>(&mut self, connection: MultiplexedConnection, reply: RedisResult<T>) -> RedisResult<T> {
        match &reply {
            Err(error) if is_missing_group(error) || !matches!(error.kind(), ErrorKind::Server(_)) => {}
            _ => self.connection = Some(connection),
        }
        reply
    }
}

/// Ends entries of an inbound stream, over the shared connection: the consumer's own is blocked in a read. Cheap to
/// clone.
#[derive(Clone)]
pub struct Acknowledger {
    redis: Redis,
    stream: Inbound,
}

impl Acknowledger {
    /// How often an entry was delivered; 0 when it is not pending.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn deliveries(&self, id: StreamId) -> RedisResult<usize> {
        let id = id.to_string();
        let reply: StreamPendingCountReply =
            self.redis.shared().xpending_count(self.stream.to_string(), GROUP, &id, &id, 1).await?;
        Ok(reply.ids.first().map_or(0, |pending| pending.times_delivered))
    }

    /// Takes an entry off the pending list, and out of the stream: acknowledging alone would free no memory.
    ///
    /// # Errors
    /// When Redis is away: the entry will be delivered again, and found in the inbox.
    pub async fn acknowledge(&self, id: StreamId) -> RedisResult<()> {
        let (stream, id) = (self.stream.to_string(), id.to_string());
        redis::pipe()
            .atomic()
            .xack(&stream, GROUP, &[&id])
            .ignore()
            .xdel(&stream, &[&id])
            .ignore()
            .query_async(&mut self.redis.shared())
            .await
    }

    /// Copies an entry to the stream of dead letters, with the reason, and acknowledges it.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn bury(&self, entry: &Entry, reason: &str) -> RedisResult<()> {
        let (stream, id) = (self.stream.to_string(), entry.id.to_string());
        let mut fields: Vec<(&str, &str)> =
            entry.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        fields.extend([("dead_reason", reason), ("dead_entry", id.as_str())]);
        redis::pipe()
            .atomic()
            .xadd(self.stream.dead_letters(), "*", &fields)
            .ignore()
            .xack(&stream, GROUP, &[&id])
            .ignore()
            .xdel(&stream, &[&id])
            .ignore()
            .query_async(&mut self.redis.shared())
            .await
    }
}
