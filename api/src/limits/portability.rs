//! How many exports and imports of organizations a process does at once: who comes beyond that is asked to try again.

use std::sync::Arc;

use http::{HeaderValue, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::problem::{Code, Problem};

/// The most exports of a process at once: each holds a connection to the database.
const EXPORTS: usize = 2;
/// The most imports of a process at once: each holds what it has read in memory.
const IMPORTS: usize = 2;
/// When to come back when all permits are taken.
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
    /// A permit for an export, until it is dropped.
    ///
    /// # Errors
    /// [`Code::Unavailable`] when there is none.
    pub fn export(&self) -> Result<OwnedSemaphorePermit, Problem> {
        permit(&self.exports, "exports")
    }

    /// A permit for an import, until it is dropped.
    ///
    /// # Errors
    /// [`Code::Unavailable`] when there is none.
    pub fn import(&self) -> Result<OwnedSemaphorePermit, Problem> {
        permit(&self.imports, "imports")
    }
}

fn permit(permits: &Arc<Semaphore>, what: &str) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(permits).try_acquire_owned().map_err(|_| {
        Problem::new(
            Code::Unavailable,
            format!("Too many {what} are running; try again after `Retry-After`."),
        )
        .header(header::RETRY_AFTER, RETRY_AFTER)
    })
}
