//! What writing and reading an export share: the names of the format.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// The version of the format. A reader rejects unknown versions.
pub(super) const VERSION: i64 = 1;
/// The media type of lines of JSON.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// The hash of all lines before the last line, which contains it.
pub(super) fn hexadecimal(hash: &Sha256) -> String {
    format!("{:x}", Bytes::copy_from_slice(&hash.clone().finalize()))
}
