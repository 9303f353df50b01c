//! What exporting and importing an organization share: the format's names, and how many of either a process does at
//! once.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, header};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::edge::problem::{Code, Problem};

/// The version of the format. A reader refuses what it does not know.
pub(super) const VERSION: i64 = 1;
/// The media type of lines of JSON.
pub(super) const NDJSON: &str = "application/x-ndjson";
/// The most exports of a process at once: each holds a connection to the database.
const EXPORTS: usize = 2;
/// The most imports of a process at once: each holds what it has read in memory.
const IMPORTS: usize = 2;
/// When to come back when all places are taken.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("10");

/// The exports and imports of a process.
pub struct Portability {
    exports: Arc<Semaphore>,
    imports: Arc<Semaphore>,
}

impl Default for Portability {
    fn default() -> Self {
        Self { exports: Arc::new(Semaphore::new(EXPORTS)), imports: Arc::new(Semaphore::new(IMPORTS)) }
    }
}

impl Portability {
    /// A place for an export, until it is dropped.
    ///
    /// # Errors
    /// [`Code::Unavailable`] when there is none.
    pub(super) fn export(&self) -> Result<OwnedSemaphorePermit, Problem> {
        place(&self.exports, "exports")
    }

    /// A place for an import, until it is dropped.
    ///
    /// # Errors
    /// [`Code::Unavailable`] when there is none.
    pub(super) fn import(&self) -> Result<OwnedSemaphorePermit, Problem> {
        place(&self.imports, "imports")
    }
}

fn place(places: &Arc<Semaphore>, what: &str) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(places).try_acquire_owned().map_err(|_| {
        Problem::new(Code::Unavailable, format!("As many {what} as there may be are under way; try again."))
            .header(header::RETRY_AFTER, RETRY_AFTER)
    })
}

/// The hash of what was hashed so far, as the last line has it.
pub(super) fn hexadecimal(hash: &Sha256) -> String {
    format!("{:x}", Bytes::copy_from_slice(&hash.clone().finalize()))
}
