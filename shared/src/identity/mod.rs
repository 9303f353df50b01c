//! Who somebody is: access tokens, the keys that sign them, and the tokens that were signed out early.

mod keyring;
mod revocations;
mod token;

pub use self::{
    keyring::{Keyring, KeyringError},
    revocations::Revocations,
    token::{Claims, TOKEN_LIFETIME, TokenError},
};
