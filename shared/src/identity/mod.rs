//! Authentication of users: access tokens, the keys that sign them, and the sign-in sessions that ended early.

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
