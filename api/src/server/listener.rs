//! The public listener: accepts connections up to a limit, and ends them gracefully when the process stops.
//!
//! Stopping has four phases:
//!
//! 1. SIGTERM makes readiness fail immediately. The listener still accepts connections for a moment, because load
//!    balancers react late; every response closes its connection.
//! 2. The listener closes.
//! 3. After a grace period, every remaining connection ends after its current request. Open streams end by themselves,
//!    spread over the drain window.
//! 4. At the end of the window, the remaining connections are aborted.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use atrium_shared::telemetry::metrics::HTTP_CONNECTIONS;
use http::{HeaderValue, header};
use metrics::gauge;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::task::TaskTracker;

use super::{
    connection,
    connection_limits::{ConnectionLimits, Full},
};
use crate::{
    http::{
        problem::{Code, Problem},
        request_id::RequestId,
        response::{self, CLIENT_TIMEOUT, encode_http1},
    },
    routes::Routes,
    state::App,
};

/// The maximum number of connections that wait in the kernel to be accepted.
const BACKLOG: i32 = 4096;
/// The maximum number of connections of the process, if the limit on open files allows as many.
const MAX_CONNECTIONS: usize = 20_000;
/// File descriptors that are not client connections: databases, logs, the admin port.
const OTHER_FILES: usize = 256;
/// The maximum number of idle connections from one address.
const MAX_IDLE: usize = 1_000;
/// The maximum number of rejection responses that are written concurrently. Above it, connections are closed without a
/// response.
const MAX_REJECTIONS: usize = 256;
/// The maximum time that the listener still accepts connections after SIGTERM.
const ACCEPT_PERIOD: Duration = Duration::from_secs(3);
/// How long an idle connection stays open after the listener has closed.
const GRACE_PERIOD: Duration = Duration::from_secs(2);

/// Opens the public listener.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Serves until the process drains and the last connection has ended.
///
/// # Errors
/// Never. Critical tasks have this signature.
pub async fn serve(app: Arc<App>, routes: Arc<Routes>, listener: TcpListener) -> anyhow::Result<()> {
    let connections = TaskTracker::new();
    let max_total = connection_capacity();
    // Behind a proxy, all connections have its address, so there is no limit by address.
    let max_idle = if app.api.trusted_proxy_hops == 0 { MAX_IDLE } else { max_total };
    let limits = ConnectionLimits::new(max_total, max_idle);
    let rejections = Arc::new(Semaphore::new(MAX_REJECTIONS));
    let stop_accepting = {
        let app = Arc::clone(&app);
        async move {
            app.shutdown.draining().cancelled().await;
            tokio::time::sleep(ACCEPT_PERIOD.min(app.settings.drain / 10)).await;
        }
    };
    tokio::pin!(stop_accepting);
    loop {
        let accepted = tokio::select! {
            // Accepting has priority, so that clients that connected before the listener closes are served. Closing the
            // listener resets connections that are not accepted yet.
            biased;
            accepted = listener.accept() => accepted,
            () = stop_accepting.as_mut() => break,
        };
        let (stream, peer) = match accepted {
            Ok((stream, peer)) => (stream, peer.ip().to_canonical()),
            Err(error) => {
                // Out of file descriptors, or the client disconnected before the accept. Do not retry in a busy loop.
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        match limits.acquire(peer) {
            Ok(permit) => {
                tune(&stream);
                gauge!(HTTP_CONNECTIONS).set(limits.open_connections() as f64);
                let (app, routes) = (Arc::clone(&app), Arc::clone(&routes));
                let served = connection::serve(app, routes, stream, peer, Arc::new(permit));
                let limits = Arc::clone(&limits);
                connections.spawn(async move {
                    served.await;
                    gauge!(HTTP_CONNECTIONS).set(limits.open_connections() as f64);
                });
            }
            Err(full) => {
                if let Ok(permit) = Arc::clone(&rejections).try_acquire_owned() {
                    connections.spawn(async move {
                        reject(stream, peer, full).await;
                        drop(permit);
                    });
                }
            }
        }
    }
    drop(listener);
    // A client may have just sent a request on a connection that still looks idle. During the grace period, such a
    // request is served, and its response closes the connection.
    tokio::time::sleep(GRACE_PERIOD.min(app.settings.drain / 10)).await;
    app.closing.cancel();
    connections.close();
    connections.wait().await;
    Ok(())
}

/// The maximum number of connections. Raises the soft limit on open files, often 1024, to the hard limit, because a
/// connection cannot get a response when the process is out of file descriptors.
fn connection_capacity() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit on open files stays as it is");
            limit.current
        }
    };
    let files = files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let capacity = files.saturating_sub(OTHER_FILES).clamp(1, MAX_CONNECTIONS);
    if capacity < MAX_CONNECTIONS {
        tracing::warn!(
            room = capacity,
            "the limit on open files leaves room for fewer connections than the API could hold"
        );
    }
    capacity
}

/// Disables Nagle's algorithm, and sets a timeout for peers that disappear without closing the connection.
fn tune(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    // By default, the kernel waits about 15 minutes for a peer that acknowledges nothing.
    let tuned = socket.set_tcp_nodelay(true).and_then(|()| socket.set_tcp_user_timeout(Some(CLIENT_TIMEOUT)));
    if let Err(error) = tuned {
        tracing::debug!(%error, "socket options cannot be set; the connection works without them");
    }
}

/// Writes a response that states which limit was reached, without the cost of starting hyper, and closes the
/// connection.
async fn reject(mut stream: TcpStream, peer: IpAddr, full: Full) {
    tracing::debug!(%peer, ?full, "the connection limit is reached");
    let problem = match full {
        Full::Process => Problem::new(
            Code::Unavailable,
            "The server has reached its connection limit; try again after `Retry-After`.",
        ),
        Full::Address => {
            Problem::new(Code::RateLimited, "Your address has too many idle connections; use or close them.")
        }
    };
    let id = RequestId::new();
    let problem = problem.header(header::RETRY_AFTER, HeaderValue::from_static("5"));
    let response = response::problem(problem, &id);
    let encoded = encode_http1(&response, &id);
    let exchange = async {
        stream.write_all(&encoded).await?;
        stream.shutdown().await?;
        // Closing a socket that has unread data resets the connection, and the client might lose the response.
        let mut discarded = [0; 1024];
        while stream.read(&mut discarded).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), exchange).await;
}
