//! The keys in a folder of signing keys at one moment: `<kid>.pem` files, Ed25519 in PKCS#8.
//!
//! All keys verify. Of the active keys, the one with the greatest name signs. A key becomes active at the time in its
//! name (`2026-12-01T0930Z`), or else five minutes after its file was written, when every process has read it. A
//! mounted Kubernetes secret resets the times of all its files at every change, so they do not show a key's age; there,
//! the names must contain the time.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey,
    jwk::{Jwk, JwkSet, PublicKeyUse},
};
use time::{OffsetDateTime, PrimitiveDateTime, macros::format_description};

use super::{Claims, TokenError, token};
use crate::ids::{AuthSessionId, UserId};

/// How old a key's file must be before the key signs, if its name contains no time. Longer than any process takes to
/// read the file, and longer than services cache the published keys.
const ACTIVATION: Duration = Duration::from_secs(5 * 60);

/// Why keys could not be read. The text names the file.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The folder cannot be read.
    #[error("ATRIUM_SIGNING_KEYS_DIR cannot be read: {0}")]
    Folder(#[source] std::io::Error),
    /// The folder contains no key.
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
        /// Why it is not a valid key.
        reason: String,
    },
}

/// The keys of a folder, by name.
pub(super) struct Ring {
    keys: BTreeMap<String, Arc<Key>>,
}

struct Key {
    pem: Vec<u8>,
    signs_from: OffsetDateTime,
    encoding: EncodingKey,
    decoding: DecodingKey,
    public: Jwk,
}

impl Ring {
    /// Reads the folder. If a file cannot be read, its key stays as in `last`, because the file may be half-written.
    /// Returns the errors of such files.
    ///
    /// # Errors
    /// When the folder cannot be read, or no key would remain.
    pub(super) fn read(
        folder: &Path,
        last: Option<&Self>,
    ) -> Result<(Self, Vec<KeyringError>), KeyringError> {
        let (mut keys, mut unusable) = (BTreeMap::new(), Vec::new());
        for entry in std::fs::read_dir(folder).map_err(KeyringError::Folder)? {
            let path = entry.map_err(KeyringError::Folder)?.path();
            let Some(kid) = kid(&path) else { continue };
            let known = last.and_then(|ring| ring.keys.get(&kid));
            match Key::read(&path, &kid, known) {
                Ok(key) => drop(keys.insert(kid, key)),
                // The file was removed after the folder was listed, or is a link to a removed file.
                Err(None) => {}
                Err(Some(reason)) => {
                    unusable.push(KeyringError::Key { file: file_name(&path), reason });
                    keys.extend(known.map(|key| (kid, Arc::clone(key))));
                }
            }
        }
        match unusable.pop() {
            None if keys.is_empty() => Err(KeyringError::Empty),
            Some(error) if keys.is_empty() => Err(error),
            error => {
                unusable.extend(error);
                Ok((Self { keys }, unusable))
            }
        }
    }

    /// The key with this name, for verification.
    pub(super) fn verifying(&self, kid: &str) -> Option<&DecodingKey> {
        self.keys.get(kid).map(|key| &key.decoding)
    }

    /// The key that signs at `now`. If no key is active, the one with the least name, which is the oldest.
    pub(super) fn signing(&self, now: OffsetDateTime) -> Option<(&str, &EncodingKey)> {
        let active = self.keys.iter().rev().find(|(_, key)| key.signs_from <= now);
        active.or_else(|| self.keys.first_key_value()).map(|(kid, key)| (kid.as_str(), &key.encoding))
    }

    /// The names of the keys.
    pub(super) fn kids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// The public keys.
    pub(super) fn public(&self) -> JwkSet {
        JwkSet { keys: self.keys.values().map(|key| key.public.clone()).collect() }
    }
}

impl Key {
    /// Reads a key and signs and verifies once with it, so that a library built without its cryptography fails here and
    /// not at the first request. Returns `known` if the file has not changed. The error is `None` for a removed file.
    fn read(path: &Path, kid: &str, known: Option<&Arc<Self>>) -> Result<Arc<Self>, Option<String>> {
        let invalid = |error: jsonwebtoken::errors::Error| Some(error.to_string());
        let unreadable =
            |error: std::io::Error| (error.kind() != ErrorKind::NotFound).then(|| error.to_string());
        let pem = std::fs::read(path).map_err(unreadable)?;
        if let Some(known) = known.filter(|known| known.pem == pem) {
            return Ok(Arc::clone(known));
        }
        let signs_from = match time_in_name(kid) {
            Some(time) => time,
            None => {
                let written = std::fs::metadata(path).and_then(|file| file.modified()).map_err(unreadable)?;
                OffsetDateTime::from(written) + ACTIVATION
            }
        };
        let encoding = EncodingKey::from_ed_pem(&pem).map_err(invalid)?;
        let mut public = Jwk::from_encoding_key(&encoding, Algorithm::EdDSA).map_err(invalid)?;
        public.common.key_id = Some(kid.to_owned());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        let key = Self {
            decoding: DecodingKey::from_jwk(&public).map_err(invalid)?,
            pem,
            signs_from,
            encoding,
            public,
        };
        key.probe(kid).map_err(|error| Some(error.to_string()))?;
        Ok(Arc::new(key))
    }

    fn probe(&self, kid: &str) -> Result<(), TokenError> {
        let claims = Claims::new("probe", UserId::new(), "guest-0000", AuthSessionId::new());
        let signed = token::sign(kid, &self.encoding, &claims)?;
        token::verify(&signed, "probe", |_| Some(&self.decoding)).map(drop)
    }
}

/// The name of the key in this file, or none if it is not a key file. Hidden files are ignored: they may be incomplete.
fn kid(path: &Path) -> Option<String> {
    let kid = path.file_stem()?.to_str()?;
    (path.extension()? == "pem" && !kid.starts_with('.')).then(|| kid.to_owned())
}

fn file_name(path: &Path) -> String {
    path.file_name().map(PathBuf::from).unwrap_or_default().display().to_string()
}

/// The time in a key's name, if it has one: `2026-12-01T0930Z`, or with seconds.
fn time_in_name(kid: &str) -> Option<OffsetDateTime> {
    let digits = kid.strip_suffix('Z')?;
    let minutes = format_description!("[year]-[month]-[day]T[hour][minute]");
    let seconds = format_description!("[year]-[month]-[day]T[hour][minute][second]");
    let time =
        PrimitiveDateTime::parse(digits, &minutes).or_else(|_| PrimitiveDateTime::parse(digits, &seconds));
    time.ok().map(PrimitiveDateTime::assume_utc)
}

#[cfg(test)]
mod tests {
    use atrium_harness::keys::generate;

    use super::*;

    fn read(folder: &Path, last: Option<&Ring>) -> (Ring, Vec<String>) {
        let (ring, unusable) = Ring::read(folder, last).unwrap_or_else(|error| panic!("{error}"));
        (ring, unusable.iter().map(ToString::to_string).collect())
    }

    fn signing(ring: &Ring, now: OffsetDateTime) -> &str {
        ring.signing(now).expect("a key signs").0
    }

    fn backdate(file: &Path, by: Duration) {
        let file = std::fs::File::options().append(true).open(file).expect("the file is there");
        file.set_modified(std::time::SystemTime::from(crate::clock::now()) - by)
            .expect("its time can be set");
    }

    #[test]
    fn a_single_key_signs_immediately_and_a_new_key_after_the_activation_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = generate(folder.path(), "2026-01").expect("a key");
        let now = crate::clock::now();
        assert_eq!(signing(&read(folder.path(), None).0, now), "2026-01");
        backdate(&first, Duration::from_secs(3600));
        generate(folder.path(), "2026-02").expect("a key");
        let (ring, _) = read(folder.path(), None);
        assert!(ring.verifying("2026-02").is_some(), "a new key verifies immediately");
        assert_eq!(signing(&ring, now), "2026-01");
        assert_eq!(signing(&ring, now + ACTIVATION - Duration::from_secs(5)), "2026-01");
        assert_eq!(signing(&ring, now + ACTIVATION + Duration::from_secs(5)), "2026-02");
    }

    #[test]
    fn a_time_in_the_name_takes_precedence_over_the_file_time() {
        let folder = tempfile::tempdir().expect("a folder");
        for kid in ["2026-11-30T1200Z", "2026-12-01T093000Z"] {
            generate(folder.path(), kid).expect("a key");
        }
        let (ring, _) = read(folder.path(), None);
        let at = |text| time_in_name(text).expect("a moment");
        assert_eq!(
            signing(&ring, at("2026-11-01T0000Z")),
            "2026-11-30T1200Z",
            "the least name signs while no key is active"
        );
        assert_eq!(signing(&ring, at("2026-12-01T0929Z")), "2026-11-30T1200Z");
        assert_eq!(signing(&ring, at("2026-12-01T0930Z")), "2026-12-01T093000Z");
        for name in ["2026-12", "2026-12-01", "2026-12-01T0930", "2026-13-01T0930Z", "test-1", "Z", ""] {
            assert_eq!(time_in_name(name), None, "{name}");
        }
    }

    #[test]
    fn an_unreadable_file_keeps_its_key_and_affects_no_other_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let [first, second] = ["a", "b"].map(|kid| generate(folder.path(), kid).expect("a key"));
        let (ring, _) = read(folder.path(), None);
        let content = std::fs::read(&second).expect("the file is there");
        std::fs::write(&second, &content[..content.len() / 2]).expect("it can be written");
        std::fs::write(folder.path().join("c.pem"), "").expect("it can be written");
        std::fs::remove_file(&first).expect("it can be removed");
        generate(folder.path(), ".d").expect("a key that is being written");
        let (ring, unusable) = read(folder.path(), Some(&ring));
        assert_eq!(ring.kids().collect::<Vec<_>>(), ["b"]);
        assert_eq!(unusable.len(), 2, "{unusable:?}");
        assert!(unusable.iter().any(|error| error.starts_with("b.pem is not")), "{unusable:?}");

        std::fs::write(&second, content).expect("it can be written");
        std::fs::remove_file(folder.path().join("c.pem")).expect("it can be removed");
        assert!(read(folder.path(), Some(&ring)).1.is_empty());
        std::fs::remove_file(&second).expect("it can be removed");
        assert!(matches!(Ring::read(folder.path(), Some(&ring)), Err(KeyringError::Empty)));
    }

    #[test]
    fn a_swapped_folder_is_read_without_the_removed_keys() {
        let folder = tempfile::tempdir().expect("a folder");
        let version = |name: &str, kids: &[&str]| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).expect("a folder");
            for kid in kids {
                generate(&path, kid).expect("a key");
            }
        };
        // Kubernetes mounts a secret this way: the files are links through a folder link that is swapped.
        let link = |target: &str, name: &str| {
            std::os::unix::fs::symlink(target, folder.path().join(name)).expect("a link");
        };
        version("..1", &["a"]);
        link("..1", "..data");
        link("..data/a.pem", "a.pem");
        let (ring, _) = read(folder.path(), None);
        version("..2", &["b"]);
        link("..2", "..data_tmp");
        std::fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).expect("swapped");
        // The link to the removed file still exists, and the link to the new file does not exist yet.
        assert!(matches!(Ring::read(folder.path(), Some(&ring)), Err(KeyringError::Empty)));
        link("..data/b.pem", "b.pem");
        let (ring, unusable) = read(folder.path(), Some(&ring));
        assert_eq!((ring.kids().collect::<Vec<_>>(), unusable.len()), (vec!["b"], 0));
    }
}
