//! Private PostgreSQL and Redis, Atrium's processes around them, and a client that holds answers against the
//! contract: the same code serves `make dev`, the tour and every integration test.

pub mod account;
pub mod actors;
pub mod addresses;
pub mod binaries;
pub mod browser;
pub mod chaos;
pub mod checkout;
pub mod client;
mod compile;
pub mod contract;
pub mod dev;
pub mod exec;
pub mod existing;
pub mod folder;
pub mod fuzz;
pub mod interrupt;
pub mod keys;
pub mod operator;
pub mod packages;
pub mod pgbouncer;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod screen;
pub mod seed;
pub mod service;
mod spawner;
pub mod stack;
pub mod supervisor;
pub mod testing;
pub mod tour;
pub mod urls;
pub mod version;
