//! What every process reads while it runs: live streams, and the configuration that follows them.

mod backlog;
mod configuration;
mod consumer_group;
mod outbox_shard;
mod scripts;
mod tail;
