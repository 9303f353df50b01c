//! Connections to Redis: a shared one for commands, which is replaced when it fails, and a dedicated one for every
//! blocking loop.
//!
//! A blocking command on a shared connection blocks all other commands on it. And if the library's response timeout
//! ends a blocking read early, the next message is delivered to a call that has ended. So every loop that blocks has
//! its own connection, with a timeout that is longer than the block.
//!
//! The library reconnects when a connection is closed. It does not detect a half-open connection: every command on it
//! ends in a timeout for as long as the process lives. So the shared connection is pinged every second, and replaced
//! when the ping times out.

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
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Redis as the application sees it. Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    shared: Arc<ArcSwap<ConnectionManager>>,
}

impl Redis {
    /// Prepares the connections. Redis need not be available yet, and may become unavailable at any time.
    ///
    /// # Errors
    /// When the URL is not a valid Redis URL.
    pub fn new(url: &Secret) -> RedisResult<Self> {
        let client = Client::open(url.expose())?;
        let shared = Arc::new(ArcSwap::from_pointee(connect(&client)?));
        tokio::spawn(replace_when_unresponsive(client.clone(), Arc::downgrade(&shared)));
        Ok(Self { client, shared })
    }

    /// The shared connection, for commands that do not block.
    #[must_use]
    pub fn shared(&self) -> ConnectionManager {
        ConnectionManager::clone(&self.shared.load())
    }

    /// Adds a hint to its live stream, which is trimmed to its maximal length.
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

/// Pings the shared connection and replaces it when it does not respond. Ends when the last handle is dropped.
async fn replace_when_unresponsive(client: Client, shared: Weak<ArcSwap<ConnectionManager>>) {
    loop {
        tokio::time::sleep(PING_INTERVAL).await;
        let Some(current) = shared.upgrade() else { return };
        let mut connection = ConnectionManager::clone(&current.load());
        let pong: RedisResult<()> = redis::cmd("PING").query_async(&mut connection).await;
        if pong.is_err_and(|error| error.is_timeout())
            && let Ok(replacement) = connect(&client)
        {
            tracing::warn!("no reply on the connection to Redis; opening another one");
            current.store(Arc::new(replacement));
        }
    }
}

/// Whether Redis lost the stream or its group (a flush, a deletion, an older dump). The caller recreates the group and
/// continues.
#[must_use]
pub fn is_missing_group(error: &RedisError) -> bool {
    matches!(error.code(), Some("NOGROUP" | "UNBLOCKED"))
}
