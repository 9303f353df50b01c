//! The signing keys: a folder of `<kid>.pem` files, Ed25519 in PKCS#8. The greatest name signs, all verify.
//!
//! The algorithm belongs to the key and is never read from a token, which rules out the whole family of attacks
//! that begin with a token's own `alg`. A token's `kid` is only ever compared with names we loaded; it is never
//! made into a path.

use std::{collections::BTreeMap, path::Path};

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey,
    jwk::{Jwk, JwkSet, PublicKeyUse},
};

use super::{Claims, TokenError, token};
use crate::ids::{FamilyId, UserId};

/// Keys that sign and verify access tokens.
pub struct Keyring {
    issuer: String,
    signing: (String, EncodingKey),
    verifying: BTreeMap<String, DecodingKey>,
    public: JwkSet,
}

/// Why the keys could not be loaded; names the file.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The folder cannot be read.
    #[error("ATRIUM_SIGNING_KEYS_DIR cannot be read: {0}")]
    Folder(#[source] std::io::Error),
    /// The folder holds no key.
    #[error(
        "ATRIUM_SIGNING_KEYS_DIR holds no <kid>.pem file; \
         make one with: openssl genpkey -algorithm ed25519 -out 2026-01.pem"
    )]
    Empty,
    /// A file is not a private key of the right kind.
    #[error("{file} is not an Ed25519 private key in PKCS#8 PEM form: {reason}")]
    Key {
        /// The file's name.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Keyring {
    /// Loads every key of `folder`, and signs and verifies once with the signing key: a library without its
    /// cryptography fails here, at start, and not at the first request.
    ///
    /// # Errors
    /// When there is no usable key, or one of the files is not a key.
    pub fn load(folder: &Path, issuer: &str) -> Result<Self, KeyringError> {
        let mut keys = BTreeMap::new();
        for entry in std::fs::read_dir(folder).map_err(KeyringError::Folder)? {
            let path = entry.map_err(KeyringError::Folder)?.path();
            if path.extension().is_none_or(|extension| extension != "pem") {
                continue;
            }
            let Some(kid) = path.file_stem().and_then(|stem| stem.to_str()) else {
                continue;
            };
            let wrong = |reason: String| KeyringError::Key { file: path.display().to_string(), reason };
            let pem = std::fs::read(&path).map_err(|error| wrong(error.to_string()))?;
            let encoding = EncodingKey::from_ed_pem(&pem).map_err(|error| wrong(error.to_string()))?;
            keys.insert(kid.to_owned(), (encoding, path.display().to_string()));
        }

        let mut verifying = BTreeMap::new();
        let mut public = JwkSet { keys: Vec::new() };
        for (kid, (encoding, file)) in &keys {
            let wrong = |error: jsonwebtoken::errors::Error| KeyringError::Key {
                file: file.clone(),
                reason: error.to_string(),
            };
            let mut jwk = Jwk::from_encoding_key(encoding, Algorithm::EdDSA).map_err(wrong)?;
            jwk.common.key_id = Some(kid.clone());
            jwk.common.public_key_use = Some(PublicKeyUse::Signature);
            verifying.insert(kid.clone(), DecodingKey::from_jwk(&jwk).map_err(wrong)?);
            public.keys.push(jwk);
        }
        let (kid, (encoding, file)) = keys.pop_last().ok_or(KeyringError::Empty)?;
        let keyring = Self { issuer: issuer.to_owned(), signing: (kid, encoding), verifying, public };

        let probe = keyring.issue(UserId::new(), "guest-0000", FamilyId::new());
        match probe.and_then(|(token, _)| keyring.verify(&token)) {
            Ok(_) => Ok(keyring),
            Err(error) => Err(KeyringError::Key { file, reason: error.to_string() }),
        }
    }

    /// Signs a new access token for a user's sign-in; returns it with what it says.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn issue(
        &self,
        user: UserId,
        user_key: &str,
        family: FamilyId,
    ) -> Result<(String, Claims), TokenError> {
        let claims = Claims::new(&self.issuer, user, user_key, family);
        let token = token::sign(&self.signing.0, &self.signing.1, &claims)?;
        Ok((token, claims))
    }

    /// What a token says, if it is ours and still holds. Does not look at revocations.
    ///
    /// # Errors
    /// When the token is malformed, of another key or algorithm, expired, or lacks a claim.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        token::verify(token, &self.issuer, |kid| self.verifying.get(kid))
    }

    /// The public halves, as `/.well-known/jwks.json` serves them ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517)).
    #[must_use]
    pub fn jwks(&self) -> &JwkSet {
        &self.public
    }
}
