//! Writes one log record and two metrics for every response. Both use the route's template, because a path would put
//! ids into labels.

use std::time::{Duration, Instant};

use atrium_shared::telemetry::metrics::{HTTP_REQUEST_SECONDS, HTTP_REQUESTS};
use http::{Method, StatusCode};
use metrics::{counter, histogram};

use crate::http::{problem::Code, request_id::RequestId};

/// The record of a request.
pub struct Record<'a> {
    /// The request's id.
    pub id: &'a RequestId,
    /// The client's own id of the request.
    pub client_id: Option<&'a str>,
    /// The method that was sent; `None` if the head could not be parsed.
    pub method: Option<&'a Method>,
    /// The route's template, or `unmatched`, `preflight` or `unparsed`.
    pub route: &'static str,
    /// The status of the response.
    pub status: StatusCode,
    /// The time from the head of the request to the head of the response.
    pub duration: Duration,
    /// The problem's code.
    pub code: Option<Code>,
    /// The problem's internal cause.
    pub cause: Option<&'a str>,
}

/// Logs the record and counts it.
pub fn write(record: &Record<'_>) {
    let method = record.method.map_or("none", method_label);
    let status = record.status.as_u16();
    let code = record.code.map(Code::name);
    let milliseconds = record.duration.as_secs_f64() * 1000.0;
    // Server errors have the level ERROR, so that they are logged at any configured level.
    if record.status.is_server_error() {
        tracing::error!(
            request_id = record.id.as_str(),
            client_request_id = record.client_id,
            method,
            route = record.route,
            status,
            milliseconds,
            code,
            cause = record.cause,
            "request"
        );
    } else {
        tracing::info!(
            request_id = record.id.as_str(),
            client_request_id = record.client_id,
            method,
            route = record.route,
            status,
            milliseconds,
            code,
            cause = record.cause,
            "request"
        );
    }
    counter!(HTTP_REQUESTS, "method" => method, "route" => record.route, "status" => record.status.as_str().to_owned())
        .increment(1);
    histogram!(HTTP_REQUEST_SECONDS, "method" => method, "route" => record.route)
        .record(record.duration.as_secs_f64());
}

/// A request without a response yet. If it is dropped in this state, because the client disconnected, that is logged.
pub struct PendingRequest {
    id: RequestId,
    method: Method,
    started_at: Instant,
    finished: bool,
}

impl PendingRequest {
    /// Starts to measure the duration.
    #[must_use]
    pub fn new(id: &RequestId, method: &Method) -> Self {
        Self { id: id.clone(), method: method.clone(), started_at: Instant::now(), finished: false }
    }

    /// The response is ready. Returns the duration.
    #[must_use]
    pub fn finish(mut self) -> Duration {
        self.finished = true;
        self.started_at.elapsed()
    }
}

impl Drop for PendingRequest {
    fn drop(&mut self) {
        if !self.finished {
            let milliseconds = self.started_at.elapsed().as_secs_f64() * 1000.0;
            let method = method_label(&self.method);
            tracing::info!(
                request_id = self.id.as_str(),
                method,
                milliseconds,
                "the client disconnected before its response"
            );
        }
    }
}

/// The method as a metric label. Clients can send any method, but the number of label values must be bounded.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
