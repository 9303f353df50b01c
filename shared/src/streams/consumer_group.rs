//! Reads an inbound stream as a member of its consumer group: every entry goes to one consumer, and stays *pending* for
//! that consumer until it is acknowledged. Other consumers claim what a dead consumer left pending.
//!
//! Each entry of a reply is decoded separately. The library decodes a reply as a whole, so one entry with a field name
//! that is not UTF-8 would make all other entries of the reply unreadable, at every attempt.

use std::{collections::HashMap, time::Duration};

use redis::{AsyncCommands as _, Cmd, FromRedisValue as _, RedisResult, Value, aio::MultiplexedConnection};

use super::{Acknowledger, GROUP, Inbound, Redis, StreamId, client::BLOCK, lua};

/// The most calls of `XAUTOCLAIM` in one [`ConsumerGroup::claim`].
const CLAIM_PAGES: usize = 100;
/// How many of the first entries are checked for having been skipped. It is more than consumers have pending, so that
/// pending entries at the start do not hide skipped ones.
const SKIPPED_PAGE: usize = 2_000;
const START: &str = "0-0";

/// An entry to work on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id in the stream.
    pub id: StreamId,
    /// Its fields, without those that are not UTF-8.
    pub fields: HashMap<String, String>,
}

impl Entry {
    /// Decodes an id and a list of alternating names and values. None when the entry was deleted and only its id
    /// remains.
    fn decode(value: Value) -> Option<Self> {
        let [id, fields] = <[Value; 2]>::try_from(array(value)).ok()?;
        let fields = match fields {
            Value::Nil => return None,
            Value::Map(pairs) => pairs,
            flat => {
                let mut flat = array(flat).into_iter();
                std::iter::from_fn(|| flat.next().zip(flat.next())).collect()
            }
        };
        let fields = fields.into_iter().filter_map(|(name, value)| text(name).zip(text(value)));
        Some(Self { id: text(id)?.parse().ok()?, fields: fields.collect() })
    }
}

fn array(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values,
        _ => Vec::new(),
    }
}

fn text(value: Value) -> Option<String> {
    String::from_redis_value(value).ok()
}

/// The entries of the one stream in a reply to `XREAD` or `XREADGROUP`.
fn entries_read(reply: Value) -> Vec<Entry> {
    let entries = match reply {
        Value::Map(streams) => streams.into_iter().flat_map(|(_, entries)| array(entries)).collect(),
        streams => {
            let streams = array(streams).into_iter().map(array);
            streams
                .flat_map(|stream| stream.into_iter().nth(1).map(array).unwrap_or_default())
                .collect::<Vec<_>>()
        }
    };
    entries.into_iter().filter_map(Entry::decode).collect()
}

/// One consumer of an inbound stream, with its own connection.
pub struct ConsumerGroup {
    redis: Redis,
    stream: Inbound,
    consumer: String,
    connection: Option<MultiplexedConnection>,
    claim_cursor: String,
}

impl ConsumerGroup {
    /// A consumer of `stream`; `consumer` must be unique among the running processes.
    #[must_use]
    pub fn new(redis: Redis, stream: Inbound, consumer: &str) -> Self {
        Self {
            redis,
            stream,
            consumer: consumer.to_owned(),
            connection: None,
            claim_cursor: START.to_owned(),
        }
    }

    /// Acknowledges and dead-letters the entries that this consumer reads.
    #[must_use]
    pub fn acknowledger(&self) -> Acknowledger {
        Acknowledger::new(self.redis.clone(), self.stream, &self.consumer)
    }

    /// Waits up to a second for at most `count` entries that were not delivered yet.
    ///
    /// # Errors
    /// When Redis is unavailable; the next call reconnects, and recreates a group that Redis lost.
    pub async fn read(&mut self, count: usize) -> RedisResult<Vec<Entry>> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(&self.consumer).arg("COUNT").arg(count);
        command.arg("BLOCK").arg(milliseconds(BLOCK)).arg("STREAMS").arg(self.stream.to_string()).arg(">");
        Ok(entries_read(self.execute(&command).await?))
    }

    /// Waits up to a second until there is an entry after `after`, and returns its id. The entry is not delivered.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn wait(&mut self, after: StreamId) -> RedisResult<Option<StreamId>> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(1).arg("BLOCK").arg(milliseconds(BLOCK));
        command.arg("STREAMS").arg(self.stream.to_string()).arg(after.to_string());
        Ok(entries_read(self.execute(&command).await?).first().map(|entry| entry.id))
    }

    /// Reads at most `count` entries that were not delivered yet, if the value of the key `lease` is `token`; otherwise
    /// returns none. So a reader that resumes after its lease has expired takes no entries from its successor.
    ///
    /// # Errors
    /// As [`Self::read`]; also when the key is not in the stream's slot.
    pub async fn read_leased(
        &mut self,
        count: usize,
        lease: &str,
        token: &str,
    ) -> RedisResult<Option<Vec<Entry>>> {
        let mut connection = self.connect().await?;
        let reply = lua::READ_LEASED
            .key(self.stream.to_string())
            .key(lease)
            .arg(token)
            .arg(GROUP)
            .arg(&self.consumer)
            .arg(count)
            .invoke_async(&mut connection)
            .await?;
        self.connection = Some(connection);
        Ok(if reply == Value::Int(0) { None } else { Some(entries_read(reply)) })
    }

    /// Claims at most `count` entries that have been pending for longer than `idle`.
    ///
    /// `XAUTOCLAIM` scans no more than ten times `count` of the pending entries, and may find none of them idle for
    /// long enough. So it is called again, from the cursor that it returns, until it claims some or has scanned all.
    /// The cursor is kept between calls; otherwise the last entries would wait until the first are done.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn claim(&mut self, idle: Duration, count: usize) -> RedisResult<Vec<Entry>> {
        let mut started_midway = self.claim_cursor != START;
        for _ in 0..CLAIM_PAGES {
            let mut command = redis::cmd("XAUTOCLAIM");
            command.arg(self.stream.to_string()).arg(GROUP).arg(&self.consumer).arg(milliseconds(idle));
            command.arg(&self.claim_cursor).arg("COUNT").arg(count);
            let mut reply = array(self.execute(&command).await?).into_iter();
            self.claim_cursor = reply.next().and_then(text).unwrap_or_else(|| START.to_owned());
            // Entries that were trimmed while pending are not included: Redis has removed them from the pending list.
            let claimed = reply.next().map(array).unwrap_or_default();
            if !claimed.is_empty() {
                return Ok(claimed.into_iter().filter_map(Entry::decode).collect());
            }
            if self.claim_cursor == START && !std::mem::take(&mut started_midway) {
                break;
            }
        }
        Ok(Vec::new())
    }

    /// Removes this consumer from the group, so that the names of ended processes do not fill it. A consumer with
    /// pending entries stays, because removing it would lose them; check and removal are one script. Another process
    /// [removes](Self::remove_silent_consumers) the consumers that did not do so themselves.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn leave(&mut self) -> RedisResult<()> {
        let mut connection = self.connect().await?;
        lua::LEAVE
            .key(self.stream.to_string())
            .arg(GROUP)
            .arg(&self.consumer)
            .invoke_async(&mut connection)
            .await
    }

    /// Removes consumers that have been inactive for longer than `idle` and have nothing pending, so that restarts do
    /// not fill the group. Removing a consumer loses its pending entries, so check and removal are one script.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn remove_silent_consumers(&mut self, idle: Duration) -> RedisResult<usize> {
        let mut connection = self.connect().await?;
        let reply = lua::FORGET_SILENT
            .key(self.stream.to_string())
            .arg(GROUP)
            .arg(milliseconds(idle))
            .invoke_async(&mut connection)
            .await?;
        self.connection = Some(connection);
        Ok(reply)
    }

    /// Searches for skipped entries: those before the group's position that are pending for no consumer, because the
    /// group was created or set too late in the stream, or because a consumer was deleted with its entries. Redis would
    /// never deliver them. If there is one, moves the group back to it and returns true. Consumers recognize
    /// the entries that are then delivered twice.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn restore_skipped(&mut self) -> RedisResult<bool> {
        let mut connection = self.connect().await?;
        let reply = lua::GO_BACK
            .key(self.stream.to_string())
            .arg(GROUP)
            .arg(SKIPPED_PAGE)
            .invoke_async(&mut connection)
            .await?;
        self.connection = Some(connection);
        Ok(reply)
    }

    /// Executes one command. The connection is kept only if the command succeeded. After an error its state may be
    /// unknown, the server may have become read-only, or the stream may have lost its group; the next call reconnects
    /// and recreates the group.
    async fn execute(&mut self, command: &Cmd) -> RedisResult<Value> {
        let mut connection = self.connect().await?;
        let reply = command.query_async(&mut connection).await?;
        self.connection = Some(connection);
        Ok(reply)
    }

    /// Returns the connection, or opens one and creates the group if it is missing. The group starts at `0`, because
    /// at `$` it would skip what was published before it existed.
    async fn connect(&mut self) -> RedisResult<MultiplexedConnection> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let mut connection = self.redis.dedicated().await?;
        let created: RedisResult<()> =
            connection.xgroup_create_mkstream(self.stream.to_string(), GROUP, "0").await;
        match created {
            Err(error) if error.code() != Some("BUSYGROUP") => Err(error),
            _ => Ok(connection),
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
