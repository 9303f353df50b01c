//! Private PostgreSQL and Redis, Atrium's processes around them, and a client that holds answers against the
//! contract: the same code serves `make dev`, the tour and every integration test.

pub mod account;
pub mod actors;
pub mod binaries;
pub mod checkout;
pub mod client;
pub mod contract;
pub mod exec;
pub mod folder;
pub mod interrupt;
pub mod keys;
pub mod operator;
pub mod packages;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod screen;
pub mod service;
mod spawner;
pub mod testing;
pub mod urls;
pub mod version;
