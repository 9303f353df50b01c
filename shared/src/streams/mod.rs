//! Redis Streams: transport and short replay windows. Redis may be flushed at any moment, so it never has the only copy
//! of accepted data.
//!
//! The keys of a stream and its group have one hash tag, so that they are on one node of a cluster.

mod acknowledger;
mod backlog;
mod client;
mod consumer_group;
mod dead_letters;
mod keys;
pub mod lua;
mod tail;

pub use self::{
    acknowledger::Acknowledger,
    backlog::{Backlog, StreamSignals},
    client::{Redis, is_missing_group},
    consumer_group::{ConsumerGroup, Entry},
    dead_letters::DeadLetter,
    keys::{
        API_PROCESSES_KEY, CHAT_SHARDS, CONFIG_PROCESSES_KEY, GROUP, Hint, Inbound, LimitKeys, Live,
        RELAY_SHARDS, chat_epoch_key, chat_lease_key, chat_run_key, chat_shard, config_applied_key,
        limit_whole_keys, shard_processes_key,
    },
    tail::{StreamId, Tail, TailEvent, text_fields},
};
