//! Identity: access tokens, the keys that sign them, and revoked sign-in sessions.

mod keyring;
mod revocations;
mod ring;
mod token;

pub use self::{
    keyring::Keyring,
    revocations::Revocations,
    ring::KeyringError,
    token::{Claims, TokenError},
};
