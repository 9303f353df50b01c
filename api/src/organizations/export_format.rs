//! The parts of the export format that the writer and the reader share.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// The version of the format. A reader rejects any other version.
pub(super) const VERSION: i64 = 1;
/// The media type of newline-delimited JSON.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// The hexadecimal hash of the lines written or read up to now, in the form of the last line.
pub(super) fn hexadecimal(hash: &Sha256) -> String {
    format!("{:x}", Bytes::copy_from_slice(&hash.clone().finalize()))
}
