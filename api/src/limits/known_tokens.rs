//! Access tokens that were valid in this process lately.
//!
//! Once an address has sent too many invalid tokens, no other token from it is verified: that is what bounds guessing.
//! But behind one address there may be many people, and one of them must not lock out the others. So a token that was
//! valid before is verified in any case, and still has to be valid.

use std::hash::{BuildHasher as _, RandomState};

use quick_cache::{UnitWeighter, sync::Cache};

/// The most tokens that are remembered.
const CAPACITY: u64 = 100_000;
/// Room made at start; it grows with use.
const ESTIMATED: usize = 256;

/// Fingerprints of tokens, seeded at random: nobody can make another token with one of them.
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
