//! The signing keys in a folder at one moment: `<kid>.pem` files, Ed25519 in PKCS#8.
//!
//! All of them verify. The key with the greatest name that is active signs. A key becomes active at the time in its
//! name (`2026-12-01T0930Z`), or else five minutes after its file was written: by then every process has read it. A
//! folder that changes the times of all its files at every update, such as a mounted Kubernetes secret, has no usable
//! file times: there, names contain the time.

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

/// The age at which a key signs if its name contains no time. Longer than any process takes to read it, and than
/// services cache the published keys.
const ACTIVATION: Duration = Duration::from_secs(5 * 60);

/// Why keys could not be read; names the file.
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
        /// What is wrong with it.
        reason: String,
    },
}

/// The keys, by name.
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
    /// Reads the folder. A file that cannot be read leaves its key as `last` had it: it may be half-written. Returns
    /// what was wrong with such files.
    ///
    /// # Errors
    /// When the folder cannot be read, or would leave no key at all.
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
                // Removed since the folder was listed, or a link to a removed file.
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

    /// The key of this name, to verify with.
    pub(super) fn verifying(&self, kid: &str) -> Option<&DecodingKey> {
        self.keys.get(kid).map(|key| &key.decoding)
    }

    /// The key that signs now. Where the time of none has come, the least name: the one that was there first.
    pub(super) fn signing(&self, now: OffsetDateTime) -> Option<(&str, &EncodingKey)> {
        let due = self.keys.iter().rev().find(|(_, key)| key.signs_from <= now);
        due.or_else(|| self.keys.first_key_value()).map(|(kid, key)| (kid.as_str(), &key.encoding))
    }

    /// The names.
    pub(super) fn kids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// The public halves.
    pub(super) fn public(&self) -> JwkSet {
        JwkSet { keys: self.keys.values().map(|key| key.public.clone()).collect() }
    }
}

impl Key {
    /// Reads a key and signs and verifies once with it: a library without its cryptography fails here, and not at the
    /// first request. An unchanged key is kept. The reason is `None` for a file that was just removed.
    fn read(path: &Path, kid: &str, known: Option<&Arc<Self>>) -> Result<Arc<Self>, Option<String>> {
        let wrong = |error: jsonwebtoken::errors::Error| Some(error.to_string());
        let unreadable =
            |error: std::io::Error| (error.kind() != ErrorKind::NotFound).then(|| error.to_string());
        let pem = std::fs::read(path).map_err(unreadable)?;
        if let Some(known) = known.filter(|known| known.pem == pem) {
            return Ok(Arc::clone(known));
        }
        let signs_from = match moment(kid) {
            Some(moment) => moment,
            None => {
                let written = std::fs::metadata(path).and_then(|file| file.modified()).map_err(unreadable)?;
                OffsetDateTime::from(written) + ACTIVATION
            }
        };
        let encoding = EncodingKey::from_ed_pem(&pem).map_err(wrong)?;
        let mut public = Jwk::from_encoding_key(&encoding, Algorithm::EdDSA).map_err(wrong)?;
        public.common.key_id = Some(kid.to_owned());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        let key = Self {
            decoding: DecodingKey::from_jwk(&public).map_err(wrong)?,
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

/// The name of the key in a file, if it is one. Hidden files are temporary.
fn kid(path: &Path) -> Option<String> {
    let kid = path.file_stem()?.to_str()?;
    (path.extension()? == "pem" && !kid.starts_with('.')).then(|| kid.to_owned())
}

fn file_name(path: &Path) -> String {
    path.file_name().map(PathBuf::from).unwrap_or_default().display().to_string()
}

/// The moment that a key's name may be: `2026-12-01T0930Z`, or with seconds.
fn moment(kid: &str) -> Option<OffsetDateTime> {
    let digits = kid.strip_suffix('Z')?;
    let minutes = format_description!("[year]-[month]-[day]T[hour][minute]");
    let seconds = format_description!("[year]-[month]-[day]T[hour][minute][second]");
    let moment =
        PrimitiveDateTime::parse(digits, &minutes).or_else(|_| PrimitiveDateTime::parse(digits, &seconds));
    moment.ok().map(PrimitiveDateTime::assume_utc)
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
    fn a_new_signing_key_signs_after_every_process_has_read_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = generate(folder.path(), "2026-01").expect("a key");
        let now = crate::clock::now();
        assert_eq!(signing(&read(folder.path(), None).0, now), "2026-01");
        backdate(&first, Duration::from_secs(3600));
        generate(folder.path(), "2026-02").expect("a key");
        let (ring, _) = read(folder.path(), None);
        assert!(ring.verifying("2026-02").is_some(), "it verifies from the start");
        assert_eq!(signing(&ring, now), "2026-01");
        assert_eq!(signing(&ring, now + ACTIVATION - Duration::from_secs(5)), "2026-01");
        assert_eq!(signing(&ring, now + ACTIVATION + Duration::from_secs(5)), "2026-02");
    }

    #[test]
    fn the_time_in_the_name_counts_before_the_files_own() {
        let folder = tempfile::tempdir().expect("a folder");
        for kid in ["2026-11-30T1200Z", "2026-12-01T093000Z"] {
            generate(folder.path(), kid).expect("a key");
        }
        let (ring, _) = read(folder.path(), None);
        let at = |text| moment(text).expect("a moment");
        assert_eq!(
            signing(&ring, at("2026-11-01T0000Z")),
            "2026-11-30T1200Z",
            "the first, while there is no other"
        );
        assert_eq!(signing(&ring, at("2026-12-01T0929Z")), "2026-11-30T1200Z");
        assert_eq!(signing(&ring, at("2026-12-01T0930Z")), "2026-12-01T093000Z");
        for none in ["2026-12", "2026-12-01", "2026-12-01T0930", "2026-13-01T0930Z", "test-1", "Z", ""] {
            assert_eq!(moment(none), None, "{none}");
        }
    }

    #[test]
    fn an_unreadable_file_keeps_its_key_and_affects_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let [first, second] = ["a", "b"].map(|kid| generate(folder.path(), kid).expect("a key"));
        let (ring, _) = read(folder.path(), None);
        let whole = std::fs::read(&second).expect("the file is there");
        std::fs::write(&second, &whole[..whole.len() / 2]).expect("it can be written");
        std::fs::write(folder.path().join("c.pem"), "").expect("it can be written");
        std::fs::remove_file(&first).expect("it can be removed");
        generate(folder.path(), ".d").expect("a key that is being written");
        let (ring, unusable) = read(folder.path(), Some(&ring));
        assert_eq!(ring.kids().collect::<Vec<_>>(), ["b"]);
        assert_eq!(unusable.len(), 2, "{unusable:?}");
        assert!(unusable.iter().any(|error| error.starts_with("b.pem is not")), "{unusable:?}");

        std::fs::write(&second, whole).expect("it can be written");
        std::fs::remove_file(folder.path().join("c.pem")).expect("it can be removed");
        assert!(read(folder.path(), Some(&ring)).1.is_empty());
        std::fs::remove_file(&second).expect("it can be removed");
        assert!(matches!(Ring::read(folder.path(), Some(&ring)), Err(KeyringError::Empty)));
    }

    #[test]
    fn a_swapped_folder_is_read_consistently() {
        let folder = tempfile::tempdir().expect("a folder");
        let version = |name: &str, kids: &[&str]| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).expect("a folder");
            for kid in kids {
                generate(&path, kid).expect("a key");
            }
        };
        // As Kubernetes mounts a secret: the files are links through a link that is swapped.
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
        // The link to the old folder still exists, and the one to the new folder does not yet.
        assert!(matches!(Ring::read(folder.path(), Some(&ring)), Err(KeyringError::Empty)));
        link("..data/b.pem", "b.pem");
        let (ring, unusable) = read(folder.path(), Some(&ring));
        assert_eq!((ring.kids().collect::<Vec<_>>(), unusable.len()), (vec!["b"], 0));
    }
}
