//! Reads a body one line at a time, for bodies that are too large to be kept in memory.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout, timeout_at};

use super::problem::{Code, Problem};

/// How long a client may send nothing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// The lines of a body.
pub struct Lines {
    incoming: Incoming,
    limit: usize,
    longest: usize,
    deadline: Instant,
    received: usize,
    /// Bytes that were received but not returned yet.
    buffer: BytesMut,
    /// How many bytes of the buffer are known to contain no newline.
    searched: usize,
    ended: bool,
}

impl Lines {
    pub(super) fn new(incoming: Incoming, limit: usize, longest: usize, time: Duration) -> Self {
        let deadline = Instant::now() + time;
        let buffer = BytesMut::new();
        Self { incoming, limit, longest, deadline, received: 0, buffer, searched: 0, ended: false }
    }

    /// The next line, including its newline if it has one; `None` after the last line.
    ///
    /// # Errors
    /// [`Code::BodyTooLarge`] when the body or a line is too large; [`Code::MalformedRequest`] when the body is
    /// incomplete or does not arrive in time.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        // A body whose `Content-Length` is too large is rejected before its first byte is read.
        if self.incoming.size_hint().lower() > self.limit as u64 {
            return Err(Problem::body_too_large(self.limit));
        }
        loop {
            let newline = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
            let end = newline.map(|at| self.searched + at + 1);
            if end.unwrap_or(self.buffer.len()) > self.longest {
                let longest = self.longest;
                let detail =
                    format!("A line of the body is longer than {longest} bytes, the limit of this route.");
                return Err(Problem::new(Code::BodyTooLarge, detail));
            }
            if let Some(end) = end {
                self.searched = 0;
                return Ok(Some(self.buffer.split_to(end).freeze()));
            }
            self.searched = self.buffer.len();
            if self.ended {
                self.searched = 0;
                return Ok(Some(self.buffer.split().freeze()).filter(|rest| !rest.is_empty()));
            }
            self.receive().await?;
        }
    }

    async fn receive(&mut self) -> Result<(), Problem> {
        let timed_out =
            |_| Problem::new(Code::MalformedRequest, "The body did not arrive in time; send it faster.");
        let frame = timeout(IDLE_TIMEOUT, self.incoming.frame());
        let Some(frame) = timeout_at(self.deadline, frame).await.map_err(timed_out)?.map_err(timed_out)?
        else {
            self.ended = true;
            return Ok(());
        };
        let frame = frame.map_err(|error| {
            Problem::new(Code::MalformedRequest, "The body is incomplete or malformed; send it again.")
                .cause(error)
        })?;
        if let Ok(data) = frame.into_data() {
            self.received += data.len();
            if self.received > self.limit {
                return Err(Problem::body_too_large(self.limit));
            }
            self.buffer.extend_from_slice(&data);
        }
        Ok(())
    }
}
