//! The limits: the requests of one caller, the requests and open streams of all members of an organization together,
//! and the members and projects of an organization.
//!
//! Rate limits ([`rate_limits`]) apply over all API processes. A process first rejects requests whose shared bucket it
//! has cached as empty (`buckets`), then those beyond the quota that governor counts for this process alone (`gate`).
//! Otherwise it takes a cell from the shared bucket in Redis ([`shared`]), or from its own share while Redis is
//! unavailable. `limiter` combines these steps. Open event streams are counted in Redis too ([`streams`]). The quotas
//! of an organization use both ([`quotas`]). Its members and projects are counted in PostgreSQL ([`resource_quotas`]).
//! Reasons and guarantees: `docs/adr/0009-limits-are-shared-and-fall-back-to-shares.md`.

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
