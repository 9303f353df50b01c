//! Serves one connection with hyper, with limits on time and memory, and ends it when the process stops.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::{connection_limits::ConnectionPermit, pipeline, unparsed::ClientStream};
use crate::{routes::Routes, state::App};

/// How long a request's head may take to arrive, including the idle time before it, because hyper starts this timer
/// when it begins to wait for a head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// The maximum size of a head, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// How many bytes hyper buffers for a connection in each direction, which bounds the memory of a client that does not
/// read.
const MAX_BUFFER: usize = 64 * 1024;
/// The maximum number of headers; real clients send fewer.
const MAX_HEADERS: usize = 64;

/// Serves a connection until it ends, which releases its permit.
pub async fn serve(
    app: Arc<App>,
    routes: Arc<Routes>,
    stream: TcpStream,
    peer: IpAddr,
    permit: Arc<ConnectionPermit>,
) {
    let service_app = Arc::clone(&app);
    let service = service_fn(move |request| {
        let (app, routes, busy) = (Arc::clone(&service_app), Arc::clone(&routes), permit.busy());
        async move {
            let response = pipeline::respond(&app, &routes, peer, request).await;
            Ok::<_, Infallible>(busy.until_sent(response))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(ClientStream::new(stream, app.api.public_url.is_https())), service);
    tokio::pin!(connection);
    let closing = app.closing.clone();
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = closing.cancelled() => {
            // The connection ends after the current request. An open stream ends by itself.
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                result = connection.as_mut() => result,
                () = app.shutdown.force().cancelled() => Ok(()),
            }
        }
    };
    if let Err(error) = result {
        // Clients disconnect early or send data that is not HTTP, which needs no action.
        tracing::debug!(%error, "a connection ended early");
    }
}
