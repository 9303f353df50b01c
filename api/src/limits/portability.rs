//! Limits the concurrent exports and imports of organizations in a process. Further requests have to be retried later.

use std::sync::Arc;

use http::{HeaderValue, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::problem::{Code, Problem};

/// Maximum number of concurrent exports: each uses a database connection.
const EXPORTS: usize = 2;
/// Maximum number of concurrent imports: each keeps what it has read in memory.
const IMPORTS: usize = 2;
/// When to retry if all permits are in use, seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("10");

/// The permits for exports and imports of a process.
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
    /// Takes a permit for an export. Dropping it returns it.
    ///
    /// # Errors
    /// [`Code::Unavailable`] if all permits are in use.
    pub fn export(&self) -> Result<OwnedSemaphorePermit, Problem> {
        permit(&self.exports, "exports")
    }

    /// Takes a permit for an import. Dropping it returns it.
    ///
    /// # Errors
    /// [`Code::Unavailable`] if all permits are in use.
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
