//! Adds a problem document to hyper's responses to requests that it cannot parse, which consist of a status only.
//!
//! hyper has no hook for these responses, so the socket is wrapped: a written response with a 4xx status and without a
//! request id is hyper's own, because every response of the API has a request id.

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

/// A client's stream on which hyper's own error responses are replaced by problem documents.
pub struct ClientStream {
    stream: TcpStream,
    https: bool,
    /// The remaining bytes of the replacement, and the length of the response that it replaces.
    replacement: Option<(Bytes, usize)>,
}

impl ClientStream {
    /// Wraps a connection. `https`: as in [`headers::secure`].
    #[must_use]
    pub fn new(stream: TcpStream, https: bool) -> Self {
        Self { stream, https, replacement: None }
    }

    fn poll_write_problem(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        while let Some((bytes, replaced_len)) = &mut self.replacement {
            if bytes.is_empty() {
                // hyper expects the number of bytes of its own response.
                let written = *replaced_len;
                self.replacement = None;
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

/// Whether hyper wrote this response by itself.
fn is_bare_rejection(response: &[u8]) -> bool {
    response.starts_with(b"HTTP/1.1 4")
        && response.ends_with(b"\r\n\r\n")
        && !response
            .windows(X_REQUEST_ID.as_str().len())
            .any(|window| window == X_REQUEST_ID.as_str().as_bytes())
}

/// The problem document that replaces a response of hyper, with its HTTP/1.1 head. Also writes the access log.
fn problem_for(bare: &[u8], https: bool) -> Bytes {
    let detail = match bare.get(9..12) {
        Some(b"431") => "The request's headers are too large or too many; send fewer.",
        Some(b"414") => "The request's URL is too long; send a shorter one.",
        _ => "Malformed HTTP request.",
    };
    let id = RequestId::new();
    let mut response = response::problem(Problem::new(Code::MalformedRequest, detail), &id);
    headers::secure(response.headers_mut(), https);
    access_log::write(&Record {
        id: &id,
        client_id: None,
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
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.replacement.is_none() && is_bare_rejection(bytes) {
            self.replacement = Some((problem_for(bytes, self.https), bytes.len()));
        }
        if self.replacement.is_some() {
            return self.poll_write_problem(context);
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.replacement.is_none()
            && let [bytes] = parts
            && is_bare_rejection(bytes)
        {
            self.replacement = Some((problem_for(bytes, self.https), bytes.len()));
        }
        if self.replacement.is_some() {
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
    fn only_error_responses_without_a_request_id_are_replaced() {
        assert!(is_bare_rejection(
            b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        ));
        for ours in [
            &b"HTTP/1.1 404 Not Found\r\nx-request-id: abc\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"data: HTTP/1.1 400\r\n\r\n",
        ] {
            assert!(!is_bare_rejection(ours), "{}", String::from_utf8_lossy(ours));
        }
    }
}
