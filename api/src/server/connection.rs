//! One connection: hyper with every limit set, and an end that comes when the process stops.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::{connection_limits::ConnectionPermit, pipeline, unparsed::ClientStream};
use crate::{routes::Routes, state::App};

/// How long a request's head may take, and how long a connection may rest between two requests: hyper's clock
/// starts when it begins to wait for a head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// The largest head.
const MAX_HEAD: usize = 16 * 1024;
/// hyper's buffer limit for a connection in either direction: a client that does not read uses no more memory.
const MAX_BUFFER: usize = 64 * 1024;
/// More headers than any client of ours sends.
const MAX_HEADERS: usize = 64;

/// Serves a connection to its end, which gives its permit back.
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
            let response = pipeline::answer(&app, &routes, peer, request).await;
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
            // The request at work is answered, then the connection ends. An open stream ends by itself.
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                result = connection.as_mut() => result,
                () = app.shutdown.force().cancelled() => Ok(()),
            }
        }
    };
    if let Err(error) = result {
        // Clients break off, and send what is no HTTP: nothing to act upon.
        tracing::debug!(%error, "a connection ended early");
    }
}
