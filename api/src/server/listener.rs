//! The public listener: accepts connections while there is room, and ends them well when the process stops.
//!
//! The end comes in steps. SIGTERM makes readiness fail at once; the listener goes on for a moment, because whoever
//! sends us requests learns of it late, and each answer ends its connection. Then the listener closes, and after a
//! grace every connection that is left ends after the request it is serving; open streams end themselves, spread
//! over the drain window. What is left when the window is over is cut.

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

/// Connections that are accepted but not yet ours.
const BACKLOG: i32 = 4096;
/// The most connections of the process, where the system lets it open as many files.
const MAX_CONNECTIONS: usize = 20_000;
/// Files that are not clients' connections: databases, logs, the admin port.
const OTHER_FILES: usize = 256;
/// The most connections that one address may hold without asking anything.
const MAX_RESTING: usize = 1_000;
/// The most refusals that are being explained at once; beyond, connections are closed without a word.
const MAX_REFUSALS: usize = 256;
/// The longest that the listener goes on after SIGTERM.
const LINGER: Duration = Duration::from_secs(3);
/// How long a quiet connection stays after the listener has closed.
const GRACE: Duration = Duration::from_secs(2);

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
/// Never; the signature is that of a critical task.
pub async fn serve(app: Arc<App>, routes: Arc<Routes>, listener: TcpListener) -> anyhow::Result<()> {
    let connections = TaskTracker::new();
    let room = room();
    // Behind a proxy all connections have its address, and their number is its business.
    let resting = if app.api.trusted_proxy_hops == 0 { MAX_RESTING } else { room };
    let limits = ConnectionLimits::new(room, resting);
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let stop_accepting = {
        let app = Arc::clone(&app);
        async move {
            app.shutdown.draining().cancelled().await;
            tokio::time::sleep(LINGER.min(app.settings.drain / 10)).await;
        }
    };
    tokio::pin!(stop_accepting);
    loop {
        let accepted = tokio::select! {
            // In this order: who has connected before the listener closes is served. Closing it over them would
            // reset their connections.
            biased;
            accepted = listener.accept() => accepted,
            () = stop_accepting.as_mut() => break,
        };
        let (stream, peer) = match accepted {
            Ok((stream, peer)) => (stream, peer.ip().to_canonical()),
            Err(error) => {
                // Out of file descriptors, or a connection that was gone before we looked. Spinning helps neither.
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        match limits.take(peer) {
            Ok(permit) => {
                tune(&stream);
                gauge!(HTTP_CONNECTIONS).set(limits.taken() as f64);
                let (app, routes) = (Arc::clone(&app), Arc::clone(&routes));
                let served = connection::serve(app, routes, stream, peer, Arc::new(permit));
                let limits = Arc::clone(&limits);
                connections.spawn(async move {
                    served.await;
                    gauge!(HTTP_CONNECTIONS).set(limits.taken() as f64);
                });
            }
            Err(full) => {
                if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
                    connections.spawn(async move {
                        refuse(stream, peer, full).await;
                        drop(permit);
                    });
                }
            }
        }
    }
    drop(listener);
    // A request may be on its way on a connection that looks idle; ending it now would cut that request. Within the
    // grace it is served, and its answer ends the connection.
    tokio::time::sleep(GRACE.min(app.settings.drain / 10)).await;
    app.closing.cancel();
    connections.close();
    connections.wait().await;
    Ok(())
}

/// How many connections there is room for. The soft limit on open files, often 1024, is raised as far as it goes:
/// running out of files would refuse connections without a word.
fn room() -> usize {
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
    let room = files.saturating_sub(OTHER_FILES).clamp(1, MAX_CONNECTIONS);
    if room < MAX_CONNECTIONS {
        tracing::warn!(
            room,
            "the limit on open files leaves room for fewer connections than the API could hold"
        );
    }
    room
}

/// Small writes go out at once; a peer that has vanished is noticed.
fn tune(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    // The kernel by itself waits a quarter of an hour for a peer that acknowledges nothing.
    let tuned = socket.set_tcp_nodelay(true).and_then(|()| socket.set_tcp_user_timeout(Some(CLIENT_TIMEOUT)));
    if let Err(error) = tuned {
        tracing::debug!(%error, "a connection cannot be tuned; it works all the same");
    }
}

/// Says why there is no room, as a whole answer written by hand: hyper is not worth starting for it.
async fn refuse(mut stream: TcpStream, peer: IpAddr, full: Full) {
    tracing::debug!(%peer, ?full, "no room for a connection");
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
    let wire = encode_http1(&response, &id);
    let exchange = async {
        stream.write_all(&wire).await?;
        stream.shutdown().await?;
        // Closing over what the client has sent and we have not read would reset the connection, and the client
        // might never see the answer.
        let mut unread = [0; 1024];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), exchange).await;
}
