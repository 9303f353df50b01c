//! Why a request got no answer, or no stream.

use std::time::Duration;

use atrium_contract::Reply;

/// No answer came.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server cannot be reached, or closed the connection.
    #[error("{request}: {source}")]
    Transport {
        /// Method and path.
        request: String,
        /// What happened.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long.
    #[error("{request}: no answer within {after:?}")]
    Timeout {
        /// Method and path.
        request: String,
        /// The time limit.
        after: Duration,
    },
}

/// No stream was opened.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// No answer came.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The answer is not a stream.
    #[error("{}", .0.unexpected("a stream of events"))]
    Refused(Box<Reply>),
}

impl StreamError {
    /// The answer that came instead of a stream.
    #[must_use]
    pub fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Refused(reply) => Some(reply),
            Self::Client(_) => None,
        }
    }
}
