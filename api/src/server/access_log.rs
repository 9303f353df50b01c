//! One record in the log and two metrics for every answer. Named by the route's template: a path would put ids into labels.

use std::time::{Duration, Instant};

use atrium_shared::telemetry::metrics::{HTTP_REQUEST_SECONDS, HTTP_REQUESTS};
use http::{Method, StatusCode};
use metrics::{counter, histogram};

use crate::http::{problem::Code, request_id::RequestId};

/// What is recorded of a request.
pub struct Record<'a> {
    /// The request's id.
    pub id: &'a RequestId,
    /// The method that was sent; none when the head could not be read.
    pub method: Option<&'a Method>,
    /// The route's template, or `unmatched`.
    pub route: &'static str,
    /// The answer's status.
    pub status: StatusCode,
    /// From the request's head to the answer's head.
    pub duration: Duration,
    /// The problem's code.
    pub code: Option<Code>,
    /// What went wrong inside.
    pub cause: Option<&'a str>,
}

/// Logs the record and counts it.
pub fn write(record: &Record<'_>) {
    let method = record.method.map_or("none", known);
    let status = record.status.as_u16();
    let code = record.code.map(Code::name);
    let milliseconds = record.duration.as_secs_f64() * 1000.0;
    // A fault of ours is an error, so that it is seen at any level; the rest is the day's work.
    if record.status.is_server_error() {
        tracing::error!(
            request_id = record.id.as_str(),
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

/// Watches over a request until it is answered: a client that disconnects before is recorded, too.
pub struct Unanswered {
    id: RequestId,
    method: Method,
    started: Instant,
    answered: bool,
}

impl Unanswered {
    /// Begins to watch.
    #[must_use]
    pub fn new(id: &RequestId, method: &Method) -> Self {
        Self { id: id.clone(), method: method.clone(), started: Instant::now(), answered: false }
    }

    /// Ends the watch: how long it took.
    #[must_use]
    pub fn answered(mut self) -> Duration {
        self.answered = true;
        self.started.elapsed()
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if !self.answered {
            let milliseconds = self.started.elapsed().as_secs_f64() * 1000.0;
            let method = known(&self.method);
            tracing::info!(
                request_id = self.id.as_str(),
                method,
                milliseconds,
                "the client left before its answer"
            );
        }
    }
}

/// A client may invent methods; a label's values must be few.
fn known(method: &Method) -> &'static str {
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
