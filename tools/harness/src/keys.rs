//! Signing keys for a stack: one Ed25519 key, as the PEM file that Atrium reads.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Writes a new key named `kid` into the folder and returns its file.
///
/// # Errors
/// When the file cannot be written.
pub fn generate(folder: &Path, kid: &str) -> anyhow::Result<PathBuf> {
    let document =
        Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).map_err(|_| anyhow!("no randomness"))?;
    let file = folder.join(format!("{kid}.pem"));
    std::fs::write(&file, pem(document.as_ref()))?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

fn pem(document: &[u8]) -> String {
    let encoded = STANDARD.encode(document);
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    for line in encoded.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|&byte| char::from(byte)));
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem
}

#[cfg(test)]
mod tests {
    #[test]
    fn keys_are_files_of_their_name() {
        let folder = tempfile::tempdir().expect("temporary folders can be made");
        let first = super::generate(folder.path(), "2026-01").expect("a key");
        let second = super::generate(folder.path(), "2026-02").expect("a key");
        assert!(first.ends_with("2026-01.pem"));
        let read = |file| std::fs::read_to_string(file).expect("the file is there");
        let (first, second) = (read(&first), read(&second));
        assert!(
            first.starts_with("-----BEGIN PRIVATE KEY-----\n") && first.lines().all(|line| line.len() <= 64)
        );
        assert_ne!(first, second);
    }
}
