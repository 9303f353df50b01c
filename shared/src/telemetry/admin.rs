//! The admin port: metrics and probes, on a listener of their own so that no public route can expose them.
//!
//! Liveness (`/healthz`) checks only that the process responds, because a restart does not help while the database is
//! unavailable. Readiness (`/readyz`) reports the process's own state: everything is loaded, and it is not draining.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::Shutdown;

/// Whether this process is ready for work.
#[derive(Clone, Debug)]
pub struct Readiness {
    loaded: Arc<AtomicBool>,
    draining: CancellationToken,
}

impl Readiness {
    /// Not ready until [`Self::set_loaded`], and not ready again once `shutdown` drains.
    #[must_use]
    pub fn new(shutdown: &Shutdown) -> Self {
        Self { loaded: Arc::default(), draining: shutdown.draining().clone() }
    }

    /// Records that everything needed for the first request is in memory.
    pub fn set_loaded(&self) {
        self.loaded.store(true, Ordering::Release);
    }

    /// Why the process is not ready, or `None` when it is ready.
    #[must_use]
    pub fn reason_against(&self) -> Option<&'static str> {
        if self.draining.is_cancelled() {
            Some("draining")
        } else if !self.loaded.load(Ordering::Acquire) {
            Some("loading")
        } else {
            None
        }
    }
}

/// Listens on `address` and serves until the process is forced to end. Returns the bound address, which differs from
/// `address` if its port is 0.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    address: SocketAddr,
    readiness: Readiness,
    metrics: PrometheusHandle,
    shutdown: &Shutdown,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    let force = shutdown.force().clone();
    // Not a tracked task: it responds to probes until the process ends, so the shutdown does not wait for it.
    tokio::spawn(async move {
        while let Some(accepted) = force.run_until_cancelled(listener.accept()).await {
            let Ok((stream, _)) = accepted else {
                // Most likely out of file descriptors: wait until other connections close.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (readiness, metrics) = (readiness.clone(), metrics.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let response = respond(request.method(), request.uri().path(), &readiness, &metrics);
                async { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(10))
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    Ok(bound)
}

fn respond(
    method: &Method,
    path: &str,
    readiness: &Readiness,
    metrics: &PrometheusHandle,
) -> Response<Full<Bytes>> {
    let (status, body) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, "alive\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") => match readiness.reason_against() {
            None => (StatusCode::OK, "ready\n".to_owned()),
            Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        },
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, metrics.render()),
        (_, "/healthz" | "/readyz" | "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, String::new()),
        _ => (StatusCode::NOT_FOUND, "try /healthz, /readyz or /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}
