//! Processes one request: finds its route, authenticates its caller, counts it against limits, and calls its handler.

use std::{net::IpAddr, sync::Arc};

use atrium_shared::timings::MAX_RESPONSE_TIME;
use http::{HeaderMap, HeaderValue, Method, Version, header};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{
    access_log::{self, PendingRequest},
    cors, headers, panic,
};
use crate::{
    auth::{
        authenticate::{Carrier, authenticate},
        origin,
    },
    http::{
        problem::{Code, FieldError, Problem},
        quota_status::QuotaStatus,
        request::Request,
        request_id::{RequestId, X_REQUEST_ID, client_request_id},
        response::{self, Response},
    },
    live::answer::retry_later,
    routes::{Access, Found, Limit, Route, Routes},
    state::App,
};

/// Responds to a request from `peer`. Never fails: errors become responses.
pub async fn respond(
    app: &Arc<App>,
    routes: &Routes,
    peer: IpAddr,
    incoming: http::Request<Incoming>,
) -> Response {
    let (head, body) = incoming.into_parts();
    let id = RequestId::new();
    let client_id = client_request_id(&head.headers);
    let pending = PendingRequest::new(&id, &head.method);
    let origin = head.headers.get(header::ORIGIN).cloned();
    let method = head.method.clone();

    let (route, result, quota_status) = match (check_head(&head), routes.find(&head.method, head.uri.path()))
    {
        (Err(problem), _) => ("unmatched", Err(problem), None),
        (Ok(()), Found::Nothing) => {
            let detail = "No route has this path; check it, and leave out a trailing slash.";
            ("unmatched", Err(Problem::new(Code::RouteNotFound, detail)), None)
        }
        (Ok(()), Found::Path(allow)) if method == Method::OPTIONS => {
            ("preflight", Ok(cors::options(&app.api, &head.headers, allow)), None)
        }
        (Ok(()), Found::Path(allow)) => {
            let detail = "This route does not allow the method; `Allow` lists the methods it has.";
            let problem = Problem::new(Code::MethodNotAllowed, detail).header(header::ALLOW, allow);
            ("unmatched", Err(problem), None)
        }
        (Ok(()), Found::Route(route, parameters)) => {
            let client = client_address(peer, &head.headers, app.api.trusted_proxy_hops);
            let request = Request::new(head, client, parameters, body, route.body_limit);
            let (result, quota_status) = run(app, &route, request).await;
            (route.template, result, quota_status)
        }
    };

    let (code, cause, mut response) = match result {
        Ok(response) => (None, None, response),
        Err(problem) => {
            let cause = problem.internal_cause().map(str::to_owned);
            (Some(problem.code()), cause, response::problem(problem, &id))
        }
    };
    finish(app, &id, origin.as_ref(), quota_status, response.headers_mut());
    access_log::write(&access_log::Record {
        id: &id,
        client_id: client_id.as_deref(),
        method: Some(&method),
        route,
        status: response.status(),
        duration: pending.finish(),
        code,
        cause: cause.as_deref(),
    });
    response
}

/// Checks what HTTP/1.1 requires of `Host`; hyper does not.
fn check_head(head: &http::request::Parts) -> Result<(), Problem> {
    let hosts = head.headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && head.version == Version::HTTP_11) {
        return Err(Problem::new(Code::MalformedRequest, "A header is malformed; `errors` names it.")
            .errors(vec![FieldError::header("host", "must be sent exactly once")]));
    }
    Ok(())
}

/// Runs a request of a known route. Returns the result, and the status of the limit that the request was counted
/// against.
async fn run(
    app: &Arc<App>,
    route: &Route,
    mut request: Request,
) -> (Result<Response, Problem>, Option<QuotaStatus>) {
    if let Err(problem) = admit(app, route, &mut request).await {
        let rejection = Err(problem);
        let result = if route.stream { retry_later(&request.headers, rejection) } else { rejection };
        return (result, request.quota_status());
    }
    let handler = route.handler;
    let timed_out = || Problem::unavailable("the handler took too long");
    if !route.writes() {
        let result = timeout(route.time_limit, panic::catch(handler(app, &mut request))).await;
        return (result.unwrap_or_else(|_| Err(timed_out())), request.quota_status());
    }
    // A handler that writes runs on its own task, which the drain waits for, so that neither a disconnecting client nor
    // the route's time limit stops it half-way. The task has a longer limit of its own, because a database connection
    // can die silently: the handler would then keep it for about 15 minutes, and a few such handlers would exhaust the
    // pool.
    let task_time_limit = route.time_limit + MAX_RESPONSE_TIME;
    let task_app = Arc::clone(app);
    let (sender, receiver) = tokio::sync::oneshot::channel();
    app.shutdown.spawn(async move {
        let handled = timeout(task_time_limit, panic::catch(handler(&task_app, &mut request))).await;
        let result = handled.unwrap_or_else(|_| Err(Problem::unavailable("the handler hung")));
        // Fails if the client has disconnected or the route's time limit has passed.
        let _ = sender.send((result, request.quota_status()));
    });
    match timeout(route.time_limit, receiver).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => (Err(Problem::unavailable("the handler was stopped")), None),
        Err(_) => (Err(timed_out()), None),
    }
}

/// Authenticates the caller, rejects cross-site requests, and counts the request against its limits.
async fn admit(app: &Arc<App>, route: &Route, request: &mut Request) -> Result<(), Problem> {
    match route.access {
        Access::User => {
            let (caller, carrier) = authenticate(app, route.scope, request).await?;
            if carrier == Carrier::Cookie {
                origin::check(&app.api, &request.headers, route.writes())?;
            }
            request.set_caller(caller);
        }
        // Public routes that write set cookies, so another site must not make a browser call them.
        Access::Public if route.writes() => origin::check(&app.api, &request.headers, false)?,
        Access::Public | Access::Refresh => {}
    }
    match route.limit {
        Limit::SignIns => request.set_quota_status(app.rate_limits.sign_in(request.client).await?),
        Limit::Refreshes => request.set_quota_status(app.rate_limits.refresh(request.client).await?),
        Limit::Requests => {
            let status = app.rate_limits.request(request.caller()?.id()).await?;
            // The handler of a stream counts it itself, and takes a permit for as long as the stream is open.
            if !route.stream {
                app.quotas.count(request).await?;
            }
            request.set_quota_status(status);
        }
        Limit::ChatActions | Limit::None => {}
    }
    Ok(())
}

/// Adds the headers that every response has.
fn finish(
    app: &App,
    id: &RequestId,
    origin: Option<&HeaderValue>,
    quota_status: Option<QuotaStatus>,
    response: &mut HeaderMap,
) {
    if let Some(status) = quota_status {
        status.apply(response);
    }
    headers::secure(response, app.api.public_url.is_https());
    cors::apply(&app.api, origin, response);
    if let Ok(id) = HeaderValue::try_from(id.as_str()) {
        response.insert(X_REQUEST_ID, id);
    }
    if app.shutdown.draining().is_cancelled() {
        // The client's next request opens a new connection, to a process that is not draining.
        response.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The client's address: the peer's, or the one in `X-Forwarded-For`. Every trusted proxy appends the address that it
/// received the request from, so with `hops` proxies the client's is entry `hops` from the right. The client can forge
/// every entry to the left of it.
fn client_address(peer: IpAddr, headers: &HeaderMap, hops: usize) -> IpAddr {
    let forwarded = || {
        let values = headers.get_all("x-forwarded-for").iter();
        let entries: Vec<&[u8]> =
            values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).collect();
        let entry = entries.len().checked_sub(hops).map(|index| entries[index])?;
        // Only this entry must be valid text; clients may send anything in the others.
        let entry = std::str::from_utf8(entry).ok()?.trim();
        let address = entry
            .parse()
            .ok()
            .or_else(|| entry.parse().map(|with_port: std::net::SocketAddr| with_port.ip()).ok());
        address.map(|address: IpAddr| address.to_canonical())
    };
    if hops == 0 { peer } else { forwarded().unwrap_or(peer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_addresses_count_only_from_trusted_proxies() {
        let peer: IpAddr = "10.0.0.1".parse().expect("an address");
        let headers = |value: &str| {
            HeaderMap::from_iter([(
                http::HeaderName::from_static("x-forwarded-for"),
                HeaderValue::from_bytes(value.as_bytes()).expect("a header value"),
            )])
        };
        let address = |value, hops| client_address(peer, &headers(value), hops).to_string();
        assert_eq!(address("\u{e9}, 1.1.1.1", 1), "1.1.1.1");
        assert_eq!(address("1.1.1.1", 0), "10.0.0.1");
        assert_eq!(address("6.6.6.6, 1.1.1.1", 1), "1.1.1.1");
        assert_eq!(address("6.6.6.6, 1.1.1.1, 2.2.2.2", 2), "1.1.1.1");
        assert_eq!(address("[2001:db8::1]:443", 1), "2001:db8::1");
        assert_eq!(address("nonsense", 1), "10.0.0.1");
        assert_eq!(address("1.1.1.1", 2), "10.0.0.1");
    }
}
