//! One request, from its head to its response: finds the route, authenticates the caller, applies limits, calls the
//! handler.

use std::{net::IpAddr, sync::Arc};

use atrium_shared::timings::MAX_RESPONSE_TIME;
use http::{HeaderMap, HeaderValue, Method, Version, header};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{
    access_log::{self, Unanswered},
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
        request_id::{RequestId, X_REQUEST_ID},
        response::{self, Response},
    },
    live::answer::retry_later,
    routes::{Access, Found, Limit, Route, Routes},
    state::App,
};

/// Answers a request from `peer`. Never fails: what goes wrong is an answer too.
pub async fn answer(
    app: &Arc<App>,
    routes: &Routes,
    peer: IpAddr,
    incoming: http::Request<Incoming>,
) -> Response {
    let (head, body) = incoming.into_parts();
    let id = RequestId::of(&head.headers);
    let unanswered = Unanswered::new(&id, &head.method);
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
            let client = client(peer, &head.headers, app.api.trusted_proxy_hops);
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
        method: Some(&method),
        route,
        status: response.status(),
        duration: unanswered.answered(),
        code,
        cause: cause.as_deref(),
    });
    response
}

/// Checks of the request head that HTTP requires and hyper leaves to its users.
fn check_head(head: &http::request::Parts) -> Result<(), Problem> {
    let hosts = head.headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && head.version == Version::HTTP_11) {
        return Err(Problem::new(Code::MalformedRequest, "A header is malformed; `errors` names it.")
            .errors(vec![FieldError::header("host", "must be sent exactly once")]));
    }
    Ok(())
}

/// Everything between the route and the answer, and how much is left of the limit that it was counted against.
async fn run(
    app: &Arc<App>,
    route: &Route,
    mut request: Request,
) -> (Result<Response, Problem>, Option<QuotaStatus>) {
    if let Err(problem) = admit(app, route, &mut request).await {
        let refused = Err(problem);
        let answered = if route.stream { retry_later(&request.headers, refused) } else { refused };
        return (answered, request.quota_status());
    }
    let handler = route.handler;
    let late = || Problem::unavailable("the handler took too long");
    if !route.writes() {
        let answered = timeout(route.time_limit, panic::catch(handler(app, &mut request))).await;
        return (answered.unwrap_or_else(|_| Err(late())), request.quota_status());
    }
    // On a task of its own, which the drain waits for: neither a client that disconnects nor our own time limit stops
    // it half-way. Only a handler that waits on a connection which died silently is stopped, much later: it would keep
    // that connection for a quarter of an hour, and a few of them would keep the whole pool.
    let longest = route.time_limit + MAX_RESPONSE_TIME;
    let task_app = Arc::clone(app);
    let (answered, answer) = tokio::sync::oneshot::channel();
    app.shutdown.spawn(async move {
        let handled = timeout(longest, panic::catch(handler(&task_app, &mut request))).await;
        let result = handled.unwrap_or_else(|_| Err(Problem::unavailable("the handler hung")));
        // No receiver is left if the client has disconnected.
        let _ = answered.send((result, request.quota_status()));
    });
    match timeout(route.time_limit, answer).await {
        Ok(Ok(answered)) => answered,
        Ok(Err(_)) => (Err(Problem::unavailable("the handler was stopped")), None),
        Err(_) => (Err(late()), None),
    }
}

/// Authenticates the caller, checks the origin and applies the rate limit.
async fn admit(app: &Arc<App>, route: &Route, request: &mut Request) -> Result<(), Problem> {
    match route.access {
        Access::User => {
            let (caller, carrier) = authenticate(app, route.scope, request).await?;
            if carrier == Carrier::Cookie {
                origin::check(&app.api, &request.headers, route.writes())?;
            }
            request.set_caller(caller);
        }
        // What is public and changes something must not be done in a browser's name either.
        Access::Public if route.writes() => origin::check(&app.api, &request.headers, false)?,
        Access::Public | Access::Refresh => {}
    }
    match route.limit {
        Limit::SignIns => request.set_quota_status(app.rate_limits.sign_in(request.client).await?),
        Limit::Refreshes => request.set_quota_status(app.rate_limits.refresh(request.client).await?),
        Limit::Requests => {
            let status = app.rate_limits.request(request.caller()?.id()).await?;
            // A stream's handler counts it, and keeps a permit while it is open.
            if !route.stream {
                app.quotas.count(request).await?;
            }
            request.set_quota_status(status);
        }
        Limit::ChatActions | Limit::None => {}
    }
    Ok(())
}

/// Headers that do not depend on the route.
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
        // The next request goes to a process that stays.
        response.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The client's address: the peer's, or the one that the proxies report. Every trusted proxy has appended the address
/// it saw, so with `hops` of them the client's is at position `hops` from the right; entries further left are set by
/// the client and not trusted.
fn client(peer: IpAddr, headers: &HeaderMap, hops: usize) -> IpAddr {
    let forwarded = || {
        let values = headers.get_all("x-forwarded-for").iter();
        let entries: Vec<&[u8]> =
            values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).collect();
        let entry = entries.len().checked_sub(hops).map(|index| entries[index])?;
        // Only the trusted entry has to be valid text.
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
    fn forwarded_addresses_are_used_from_trusted_proxies_only() {
        let peer: IpAddr = "10.0.0.1".parse().expect("an address");
        let headers = |value: &str| {
            HeaderMap::from_iter([(
                http::HeaderName::from_static("x-forwarded-for"),
                HeaderValue::from_bytes(value.as_bytes()).expect("a header value"),
            )])
        };
        let seen = |value, hops| client(peer, &headers(value), hops).to_string();
        assert_eq!(seen("\u{e9}, 1.1.1.1", 1), "1.1.1.1");
        assert_eq!(seen("1.1.1.1", 0), "10.0.0.1");
        assert_eq!(seen("6.6.6.6, 1.1.1.1", 1), "1.1.1.1");
        assert_eq!(seen("6.6.6.6, 1.1.1.1, 2.2.2.2", 2), "1.1.1.1");
        assert_eq!(seen("[2001:db8::1]:443", 1), "2001:db8::1");
        assert_eq!(seen("nonsense", 1), "10.0.0.1");
        assert_eq!(seen("1.1.1.1", 2), "10.0.0.1");
    }
}
