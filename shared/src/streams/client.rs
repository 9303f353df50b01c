//! Connections to Redis: one shared and self-healing for commands, a dedicated one for every blocking loop.
//!
//! A blocked command on a shared connection blocks all its users, and the library's response timeout, if it ends a
//! blocking read early, delivers the next message to an abandoned call. So loops that block have a connection of their
//! own whose timeout is longer than the block.
//!
//! The library reconnects when it notices that a connection is closed. It does not notice a half-open one: every
//! command on it times out, for as long as the process lives. So the shared connection is pinged every second, and
//! replaced when no reply arrives.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use redis::{
    AsyncCommands as _, AsyncConnectionConfig, Client, RedisError, RedisResult,
    aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection},
    streams::StreamMaxlen,
};

use super::Hint;
use crate::{settings::Secret, timings::BLOCKING_READ};

/// How long a blocking read waits in Redis.
pub(super) const BLOCK: Duration = BLOCKING_READ;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);
const PING_EVERY: Duration = Duration::from_secs(1);

/// Redis as the application sees it. Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    shared: Arc<ArcSwap<ConnectionManager>>,
}

impl Redis {
    /// Prepares the connections. Redis need not be there yet: it may come and go at any time.
    ///
    /// # Errors
    /// When the address is not one of Redis.
    pub fn new(url: &Secret) -> RedisResult<Self> {
        let client = Client::open(url.expose())?;
        let shared = Arc::new(ArcSwap::from_pointee(connect(&client)?));
        tokio::spawn(replace_when_silent(client.clone(), Arc::downgrade(&shared)));
        Ok(Self { client, shared })
    }

    /// The shared connection, for commands that do not block.
    #[must_use]
    pub fn shared(&self) -> ConnectionManager {
        ConnectionManager::clone(&self.shared.load())
    }

    /// Adds a hint to its live stream, which keeps no more of them than it must.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn announce<H: Hint>(&self, hint: &H) -> RedisResult<()> {
        let length = StreamMaxlen::Approx(H::STREAM.max_length());
        let fields = hint.to_fields().map_err(std::io::Error::from)?;
        self.shared().xadd_maxlen(H::STREAM.to_string(), length, "*", &fields).await
    }

    /// A connection for one blocking loop.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn dedicated(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(BLOCK + COMMAND_TIMEOUT));
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }
}

fn connect(client: &Client) -> RedisResult<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(COMMAND_TIMEOUT))
        .set_min_delay(Duration::from_millis(50))
        .set_max_delay(Duration::from_secs(1))
        .set_number_of_retries(1);
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}

/// Ends with the last user of the connection.
async fn replace_when_silent(client: Client, shared: Weak<ArcSwap<ConnectionManager>>) {
    loop {
        tokio::time::sleep(PING_EVERY).await;
        let Some(current) = shared.upgrade() else { return };
        let mut connection = ConnectionManager::clone(&current.load());
        let answered: RedisResult<()> = redis::cmd("PING").query_async(&mut connection).await;
        if answered.is_err_and(|error| error.is_timeout())
            && let Ok(another) = connect(&client)
        {
            tracing::warn!("nobody answers on the connection to Redis; using another one");
            current.store(Arc::new(another));
        }
    }
}

/// Whether Redis lost the stream or its group (a flush, a deletion, an older dump): make it again and go on.
#[must_use]
pub fn is_missing_group(error: &RedisError) -> bool {
    matches!(error.code(), Some("NOGROUP" | "UNBLOCKED"))
}
