//! The names of all keys in Redis.

use std::fmt;

use crate::{
    ids::{OrgId, ProjectId},
    messages::{OperationEntry, RevisionEntry, StreamEntry, Topic},
};

/// How many shards the chat has. It must be the same in every process, because each computes a project's shard from it.
pub const CHAT_SHARDS: u16 = 8;

/// How many shards the outbox has. They match the chat's, so that one relay shard publishes all messages of a chat
/// shard.
pub const RELAY_SHARDS: u16 = CHAT_SHARDS;

/// The consumer group of every inbound stream.
pub const GROUP: &str = "workers";

/// The processes that report which configuration they apply: hash of process name → when it last reported,
/// milliseconds.
pub const CONFIG_PROCESSES_KEY: &str = "atrium:{config}:processes";

/// The chat shard of a project. All events of a project go through one stream, which keeps their order.
#[must_use]
pub fn chat_shard(project: ProjectId) -> u16 {
    // The low bits of a UUIDv7 are random, so they are distributed as evenly as a hash of it.
    let low = project.uuid().as_u128() as u64;
    u16::try_from(low % u64::from(CHAT_SHARDS)).unwrap_or(0)
}

/// Which revision of an organization's configuration each process applies: hash of process name →
/// [`AppliedReport`](crate::messages::AppliedReport).
#[must_use]
pub fn config_applied_key(org: OrgId) -> String {
    format!("atrium:{{config}}:applied:{org}")
}

/// The epoch of a chat shard's live stream. It changes when events may have been lost, so that ids from before the loss
/// are not mistaken for ids from after it.
#[must_use]
pub fn chat_epoch_key(shard: u16) -> String {
    format!("atrium:{{chat.{shard}}}:epoch")
}

/// The run of Redis in which a chat shard's live stream was last confirmed to be complete.
#[must_use]
pub fn chat_run_key(shard: u16) -> String {
    format!("atrium:{{chat.{shard}}}:run")
}

/// The lease on a chat shard. Its value is the owner's fencing token.
#[must_use]
pub fn chat_lease_key(shard: u16) -> String {
    format!("atrium:{{chat.{shard}}}:lease")
}

/// The processes that divide the shards of a role: sorted set of process → its last heartbeat, milliseconds.
#[must_use]
pub fn shard_processes_key(role: &str) -> String {
    format!("atrium:{{{role}}}:processes")
}

/// How many shards the counters of limits have. Like the chat's, it must be the same in every process.
const LIMIT_SHARDS: u8 = 16;

/// The live API processes: sorted set of process name → its last heartbeat, milliseconds.
pub const API_PROCESSES_KEY: &str = "atrium:{limits}:processes";

/// The keys of a counter that all API processes share. They contain a digest, so that they do not reveal the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitKeys {
    /// The counter.
    pub counter: String,
    /// Since when the counters of this shard are complete, microseconds; 0 for always. It is lost together with them.
    pub whole: String,
}

impl LimitKeys {
    /// The keys for the subject with this digest under one policy.
    #[must_use]
    pub fn of(policy: &str, digest: &[u8; 16]) -> Self {
        let shard = digest[0] % LIMIT_SHARDS;
        let digest = u128::from_be_bytes(*digest);
        Self { counter: format!("atrium:{{limits.{shard}}}:{policy}:{digest:032x}"), whole: whole_key(shard) }
    }
}

/// For each shard of the counters, the key that contains since when it is complete.
pub fn limit_whole_keys() -> impl Iterator<Item = String> {
    (0..LIMIT_SHARDS).map(whole_key)
}

fn whole_key(shard: u8) -> String {
    format!("atrium:{{limits.{shard}}}:whole")
}

/// A stream that workers consume as a group; every entry goes to one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Inbound {
    /// Sagas with something to do.
    Saga,
    /// Organizations with a new configuration revision.
    Config,
    /// Actions and notices of the chat, by shard.
    Chat(u16),
}

impl Inbound {
    /// The stream of a message's topic and aggregate.
    #[must_use]
    pub fn of(topic: Topic, aggregate: uuid::Uuid) -> Self {
        match topic {
            Topic::Saga => Self::Saga,
            Topic::Config => Self::Config,
            Topic::Chat => Self::Chat(chat_shard(ProjectId::from(aggregate))),
        }
    }

    /// The stream to which a shard of the relay publishes messages of this topic.
    #[must_use]
    pub fn of_shard(topic: Topic, relay_shard: u16) -> Self {
        match topic {
            Topic::Saga => Self::Saga,
            Topic::Config => Self::Config,
            Topic::Chat => Self::Chat(relay_shard),
        }
    }

    /// Every inbound stream.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Saga, Self::Config].into_iter().chain((0..CHAT_SHARDS).map(Self::Chat))
    }

    /// Its name in metrics and for operators: `saga`, `config`, `chat.0` and so on.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Saga => "saga".to_owned(),
            Self::Config => "config".to_owned(),
            Self::Chat(shard) => format!("chat.{shard}"),
        }
    }

    /// The stream with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|stream| stream.name() == name)
    }

    /// The stream of dead letters, each with the reason.
    #[must_use]
    pub fn dead_letters(self) -> String {
        self.to_string().replace(":in", ":dead")
    }

    /// The key of the highest fencing token with which a shard of the relay has published to this stream.
    #[must_use]
    pub fn fence(self, relay_shard: u16) -> String {
        self.to_string().replace(":in", &format!(":fence:{relay_shard}"))
    }
}

impl fmt::Display for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saga => f.write_str("atrium:{saga}:in"),
            Self::Config => f.write_str("atrium:{config}:in"),
            Self::Chat(shard) => write!(f, "atrium:{{chat.{shard}}}:in"),
        }
    }
}

/// An entry of a live stream that announces what to read from PostgreSQL. The type determines the stream.
pub trait Hint: StreamEntry {
    /// The stream that it is added to.
    const STREAM: Live;
}

impl Hint for OperationEntry {
    const STREAM: Live = Live::Operation;
}

impl Hint for RevisionEntry {
    const STREAM: Live = Live::Config;
}

/// A stream that every process reads completely; every entry goes to all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Live {
    /// Operations that have changed; a hint to read PostgreSQL.
    Operation,
    /// Organizations with a new configuration revision; a hint to read PostgreSQL.
    Config,
    /// Chat events, by shard.
    Chat(u16),
}

impl Live {
    /// The live stream of a project's chat.
    #[must_use]
    pub fn chat_of(project: ProjectId) -> Self {
        Self::Chat(chat_shard(project))
    }

    /// Every live stream.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Operation, Self::Config].into_iter().chain((0..CHAT_SHARDS).map(Self::Chat))
    }

    /// The minimum number of entries that it keeps: enough for some minutes.
    #[must_use]
    pub fn max_length(self) -> usize {
        match self {
            Self::Operation | Self::Config => 10_000,
            Self::Chat(_) => 20_000,
        }
    }
}

impl fmt::Display for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operation => f.write_str("atrium:{operation}:live"),
            Self::Config => f.write_str("atrium:{config}:live"),
            Self::Chat(shard) => write!(f, "atrium:{{chat.{shard}}}:live"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projects_spread_over_all_shards() {
        let mut hits = [0_u32; CHAT_SHARDS as usize];
        for _ in 0..8_000 {
            hits[usize::from(chat_shard(ProjectId::new()))] += 1;
        }
        assert!(hits.iter().all(|hits| (800..1200).contains(hits)), "{hits:?}");
    }

    #[test]
    fn dead_letters_have_the_hash_tag_of_their_stream() {
        assert_eq!(Inbound::Chat(3).dead_letters(), "atrium:{chat.3}:dead");
    }

    #[test]
    fn a_fencing_token_key_has_the_hash_tag_of_its_stream() {
        assert_eq!(Inbound::Saga.fence(7), "atrium:{saga}:fence:7");
    }

    #[test]
    fn a_counter_and_its_whole_key_are_in_one_slot() {
        let keys = LimitKeys::of("sign_ins", &[0xab; 16]);
        assert_eq!(keys.counter, format!("atrium:{{limits.11}}:sign_ins:{}", "ab".repeat(16)));
        assert_eq!(keys.whole, "atrium:{limits.11}:whole");
        assert!(limit_whole_keys().any(|key| key == keys.whole));
    }
}
