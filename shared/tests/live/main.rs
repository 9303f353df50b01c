//! What every process reads while it runs: live streams, and the configuration that follows them.

mod configuration;
mod tail;
