//! Who somebody is: access tokens, the keys that sign them, and the tokens that were signed out early.

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
