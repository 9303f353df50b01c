//! Reading an inbound stream as one of a group: every entry goes to one consumer, and stays *pending* in its name
//! until it is acknowledged. What a dead consumer left pending is claimed by the others.
//!
//! Each entry of a reply is decoded by itself: the library decodes a reply whole, so one entry with a binary field name
//! would hide all others in it, at each read.

use std::{collections::HashMap, time::Duration};

use redis::{AsyncCommands as _, Cmd, FromRedisValue as _, RedisResult, Value, aio::MultiplexedConnection};

use super::{Acknowledger, GROUP, Inbound, Redis, StreamId, client::BLOCK, lua};

/// Maximum number of consecutive `XAUTOCLAIM` calls before other work continues.
const CLAIM_PAGES: usize = 100;
/// Entries that are looked at for whether they were skipped: more than consumers have in hand, so that those in front
/// do not hide the rest.
const SKIPPED_PAGE: usize = 2_000;
const START: &str = "0-0";

/// An entry to work on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id in the stream.
    pub id: StreamId,
    /// Its fields; one that is not UTF-8 is left out.
    pub fields: HashMap<String, String>,
}

impl Entry {
    /// From an id and a list of names and values in turn; none when it has been deleted, and only its id is left.
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

/// The entries of the one stream in the answer to `XREADGROUP`.
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
            claim_cursor: START.to_owned(),
        }
    }

    /// What ends the entries that this consumer reads.
    #[must_use]
    pub fn acknowledger(&self) -> Acknowledger {
        Acknowledger::new(self.redis.clone(), self.stream, &self.consumer)
    }

    /// Waits up to a second for at most `count` entries that were never delivered.
    ///
    /// # Errors
    /// If Redis is unavailable; the next call reconnects. A group that Redis lost is created again here.
    pub async fn read(&mut self, count: usize) -> RedisResult<Vec<Entry>> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(&self.consumer).arg("COUNT").arg(count);
        command.arg("BLOCK").arg(milliseconds(BLOCK)).arg("STREAMS").arg(self.stream.to_string()).arg(">");
        Ok(entries_read(self.ask(&command).await?))
    }

    /// Waits up to a second until there is an entry behind `after`, and returns its id. It is not taken.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn wait(&mut self, after: StreamId) -> RedisResult<Option<StreamId>> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(1).arg("BLOCK").arg(milliseconds(BLOCK));
        command.arg("STREAMS").arg(self.stream.to_string()).arg(after.to_string());
        Ok(entries_read(self.ask(&command).await?).first().map(|entry| entry.id))
    }

    /// Takes at most `count` undelivered entries, if the key `lease` has the value `token`; none otherwise. So a reader
    /// that was stopped past its lease takes no entries of its successor.
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

    /// Claims at most `count` entries that were delivered longer than `idle` ago and not acknowledged.
    ///
    /// `XAUTOCLAIM` checks at most ten times `count` of the pending entries, and may find none of them idle for long
    /// enough; so it is called again, from the cursor that it returns, until it finds some or has checked all. The
    /// cursor is kept from call to call, or the last ones would have to wait for the first.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn claim(&mut self, idle: Duration, count: usize) -> RedisResult<Vec<Entry>> {
        let mut unseen = self.claim_cursor != START;
        for _ in 0..CLAIM_PAGES {
            let mut command = redis::cmd("XAUTOCLAIM");
            command.arg(self.stream.to_string()).arg(GROUP).arg(&self.consumer).arg(milliseconds(idle));
            command.arg(&self.claim_cursor).arg("COUNT").arg(count);
            let mut reply = array(self.ask(&command).await?).into_iter();
            self.claim_cursor = reply.next().and_then(text).unwrap_or_else(|| START.to_owned());
            // Entries trimmed away while pending are not among them; Redis has dropped them from the list itself.
            let claimed = reply.next().map(array).unwrap_or_default();
            if !claimed.is_empty() {
                return Ok(claimed.into_iter().filter_map(Entry::decode).collect());
            }
            if self.claim_cursor == START && !std::mem::take(&mut unseen) {
                break;
            }
        }
        Ok(Vec::new())
    }

    /// Removes this consumer from the group, so that names of ended processes do not accumulate. Not while it has
    /// pending entries, which would be lost: hence one script. If this does not run, another process
    /// [removes](Self::remove_silent_consumers) the name.
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

    /// Removes consumers that have been silent longer than `idle` and have nothing pending, so that restarts do
    /// not fill the group. A consumer removed with entries pending would take them with it, hence one script.
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

    /// Looks for entries that the group has passed but that are pending for no consumer: the group was created, or set,
    /// too late in the stream, or a consumer was deleted with its entries. Redis would never deliver them. If there is
    /// one, the group is set back to it, and the inbox detects repeated deliveries. Returns whether it was.
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

    /// One command. Only a connection that has answered it is used again: after an error it may be in doubt, lead to
    /// a server that has become read-only, or to a stream that lost its group, and the next call begins with all of
    /// that anew.
    async fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        let mut connection = self.connect().await?;
        let reply = command.query_async(&mut connection).await?;
        self.connection = Some(connection);
        Ok(reply)
    }

    /// The connection, reconnected if needed, with the group created. The group begins at `0`: at `$` it would skip
    /// entries published before it existed.
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
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
