//! Requests that hyper cannot parse: it refuses them by itself, with a status and nothing else. This gives the refusal
//! the problem document that every other refusal has.
//!
//! hyper offers no hook for it, so the socket is wrapped: an answer that begins with a client error and lacks our
//! request id, which every answer of ours carries, is hyper's own.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    access_log::{self, Record},
    headers,
};
use crate::http::{
    problem::{Code, Problem},
    request_id::{RequestId, X_REQUEST_ID},
    response::{self, encode_http1},
};

/// A client's stream on which hyper's own refusals are replaced by problem documents.
pub struct ClientStream {
    stream: TcpStream,
    https: bool,
    /// What is written instead, and how much of hyper's own answer it stands for.
    instead: Option<(Bytes, usize)>,
}

impl ClientStream {
    /// Wraps a connection. `https`: as in [`headers::secure`].
    #[must_use]
    pub fn new(stream: TcpStream, https: bool) -> Self {
        Self { stream, https, instead: None }
    }

    fn poll_write_problem(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        while let Some((bytes, stands_for)) = &mut self.instead {
            if bytes.is_empty() {
                let written = *stands_for;
                self.instead = None;
                return Poll::Ready(Ok(written));
            }
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            bytes.advance(written);
        }
        Poll::Ready(Ok(0))
    }
}

/// Whether these bytes are an answer of hyper's own.
fn is_bare_refusal(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 4")
        && answer.ends_with(b"\r\n\r\n")
        && !answer
            .windows(X_REQUEST_ID.as_str().len())
            .any(|window| window == X_REQUEST_ID.as_str().as_bytes())
}

fn problem_for(answer: &[u8], https: bool) -> Bytes {
    let detail = match answer.get(9..12) {
        Some(b"431") => "The request's headers are too large or too many; send fewer.",
        Some(b"414") => "The request's URL is too long; send a shorter one.",
        _ => "Malformed HTTP request.",
    };
    let id = RequestId::new();
    let mut response = response::problem(Problem::new(Code::MalformedRequest, detail), &id);
    headers::secure(response.headers_mut(), https);
    access_log::write(&Record {
        id: &id,
        method: None,
        route: "unparsed",
        status: response.status(),
        duration: Duration::ZERO,
        code: Some(Code::MalformedRequest),
        cause: None,
    });
    encode_http1(&response, &id)
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        answer: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.instead.is_none() && is_bare_refusal(answer) {
            self.instead = Some((problem_for(answer, self.https), answer.len()));
        }
        if self.instead.is_some() {
            return self.poll_write_problem(context);
        }
        Pin::new(&mut self.stream).poll_write(context, answer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.instead.is_none()
            && let [answer] = parts
            && is_bare_refusal(answer)
        {
            self.instead = Some((problem_for(answer, self.https), answer.len()));
        }
        if self.instead.is_some() {
            return self.poll_write_problem(context);
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_without_our_id_are_explained() {
        assert!(is_bare_refusal(
            b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        ));
        for ours in [
            &b"HTTP/1.1 404 Not Found\r\nx-request-id: abc\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"data: HTTP/1.1 400\r\n\r\n",
        ] {
            assert!(!is_bare_refusal(ours), "{}", String::from_utf8_lossy(ours));
        }
    }
}
