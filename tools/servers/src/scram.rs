//! What PostgreSQL keeps of a password, made here with a single round of hashing.
//!
//! The 4,096 rounds by default make a person's password expensive to guess. They also cost every new connection 2 ms of
//! CPU time, and 100 ms in a client that is not optimized, which was a sixth of all that the tests used. Passwords of
//! throw-away servers are 128 random bits, which no number of rounds makes harder to guess. PostgreSQL stores a
//! verifier that it is given in place of a password as it is, so the exchange stays SCRAM-SHA-256 with everything else.
//!
//! Format and names: RFC 5802, section 3, and RFC 7677.

use std::num::NonZeroU32;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use aws_lc_rs::{hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The verifier of a password of many random bits.
#[must_use]
pub(crate) fn verifier(password: &str) -> String {
    derive(password, &rand::random::<[u8; 16]>(), NonZeroU32::MIN)
}

fn derive(password: &str, salt: &[u8], rounds: NonZeroU32) -> String {
    let mut salted = [0; SHA256_OUTPUT_LEN];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password.as_bytes(), &mut salted);
    let salted = hmac::Key::new(hmac::HMAC_SHA256, &salted);
    let stored = digest(&SHA256, hmac::sign(&salted, b"Client Key").as_ref());
    let server = hmac::sign(&salted, b"Server Key");
    let [salt, stored, server] = [salt, stored.as_ref(), server.as_ref()].map(|bytes| STANDARD.encode(bytes));
    format!("SCRAM-SHA-256${rounds}:{salt}${stored}:{server}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_matches_the_example_of_rfc_7677() {
        // The example of section 3: its client key proves the password "pencil" with this salt.
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let rounds = NonZeroU32::new(4096).expect("not zero");
        assert_eq!(
            derive("pencil", &salt, rounds),
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
             WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }
}
