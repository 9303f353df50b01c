//! Access tokens that this process recently verified as valid.
//!
//! Once an address has sent too many invalid tokens, no other token from it is verified, which limits guessing. But
//! many users may share one address, and one of them must not lock out the others. So a token that was valid before is
//! verified in any case, and still has to be valid.

use std::hash::{BuildHasher as _, RandomState};

use quick_cache::{UnitWeighter, sync::Cache};

/// Maximum number of tokens that are kept.
const CAPACITY: u64 = 100_000;
/// Initial capacity of the cache.
const ESTIMATED: usize = 256;

/// Fingerprints of tokens. The hash is seeded at random, so that no other token can be made with the same fingerprint.
pub(super) struct KnownTokens {
    hasher: RandomState,
    fingerprints: Cache<u64, ()>,
}

impl Default for KnownTokens {
    fn default() -> Self {
        let fingerprints = Cache::with_weighter(ESTIMATED, CAPACITY, UnitWeighter);
        Self { hasher: RandomState::new(), fingerprints }
    }
}

impl KnownTokens {
    pub(super) fn contains(&self, token: &str) -> bool {
        self.fingerprints.get(&self.hasher.hash_one(token)).is_some()
    }

    pub(super) fn insert(&self, token: &str) {
        let fingerprint = self.hasher.hash_one(token);
        if self.fingerprints.get(&fingerprint).is_none() {
            self.fingerprints.insert(fingerprint, ());
        }
    }
}
