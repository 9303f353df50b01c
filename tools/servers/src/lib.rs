//! Throw-away servers for development and tests: PostgreSQL, Redis and PgBouncer, each private to who started it.
//!
//! A server runs from this machine's packages (installed where that is possible without a password), on a free port of
//! the loopback address, with random passwords, in a temporary folder that goes with it. Every process asks the kernel
//! to be signaled when we die, so that nothing is left behind. Beside the servers: what tests do to them, which is a
//! proxy that breaks connections, a disk that can be filled, a clock that can be set, and a name that can be taken
//! away.

pub mod account;
pub mod binaries;
pub mod clock;
pub mod existing;
pub mod folder;
pub mod mounts;
pub mod names;
pub mod packages;
pub mod pgbouncer;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod redis;
mod scram;
pub mod small_disk;
mod spawner;
pub mod urls;
pub mod version;
