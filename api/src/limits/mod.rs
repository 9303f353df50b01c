//! What is limited: how often a caller may ask, how much of it an organization's members may use together, and how
//! much an organization may own.
//!
//! Rate limits ([`rate_limits`]) hold over all API processes: each one asks its own memory first, which refuses what it
//! knows to be empty (`buckets`) and what governor says this process alone has given (`gate`), then the bucket in
//! Redis that all share ([`shared`]), and gives its own share when Redis does not answer (`limiter` puts these in
//! order). Open event streams are counted in Redis too ([`streams`]). Quotas of an organization rest on both
//! ([`quotas`]); how many members and projects it may have is counted in PostgreSQL ([`resource_quotas`]).
//! Why so, and what holds when: `docs/adr/0009-limits-are-shared-and-fall-back-to-shares.md`.

mod buckets;
mod gate;
mod known_tokens;
mod limiter;
pub mod portability;
pub mod quotas;
pub mod rate_limits;
pub mod resource_quotas;
pub mod shared;
pub mod streams;
