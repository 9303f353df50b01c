//! Throw-away servers for development and tests: PostgreSQL, Redis and PgBouncer, each private to the process that started it.
//!
//! A server runs from this machine's packages (installed where that is possible without a password), on a free port of
//! the loopback address, with random passwords, in a temporary folder that is removed with it. The kernel signals
//! every server when the process that started it ends, so that nothing is left behind. Beside the servers: what tests
//! use against them, which is a proxy that breaks connections, a disk that can be filled, a clock that can be set, and a
//! host name that can be made unresolvable.

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
