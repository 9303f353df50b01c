//! A request as handlers see it: its caller, path parameters, query and headers. The body is not received until a
//! handler reads it.

use std::{net::IpAddr, str::FromStr, time::Duration};

use atrium_shared::{configuration::write::Author, db::Principal};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Uri};
use hyper::body::Incoming;

use super::{
    body::{self, Object, Reader},
    body_lines::Lines,
    caller::{Caller, SignedInUser},
    etag::IfMatch,
    problem::{Code, FieldError, Problem},
    query::{self, Query},
    quota_status::QuotaStatus,
    request_body::{Empty, RequestBody},
};

/// A request that matched a route.
pub struct Request {
    /// The method.
    pub method: Method,
    /// The URI as it was sent.
    pub uri: Uri,
    /// The headers.
    pub headers: HeaderMap,
    /// The client's address, as reported by the trusted proxies if there are any.
    pub client: IpAddr,
    parameters: Vec<(String, String)>,
    caller: Option<Caller>,
    quota_status: Option<QuotaStatus>,
    body: Reader,
}

impl Request {
    /// A request that is not authenticated yet. `parameters` are those of the path; `body_limit` is in bytes.
    pub(crate) fn new(
        head: http::request::Parts,
        client: IpAddr,
        parameters: Vec<(String, String)>,
        body: Incoming,
        body_limit: usize,
    ) -> Self {
        Self {
            method: head.method,
            uri: head.uri,
            headers: head.headers,
            client,
            parameters,
            caller: None,
            quota_status: None,
            body: Reader::new(body, body_limit),
        }
    }

    /// Sets the authenticated caller.
    pub(crate) fn set_caller(&mut self, caller: Caller) {
        self.caller = Some(caller);
    }

    /// The authenticated caller. Always set on routes with `Access::User`.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] on other routes.
    pub fn caller(&self) -> Result<&Caller, Problem> {
        self.caller.as_ref().ok_or_else(|| Problem::unauthenticated("The access token is missing; sign in."))
    }

    /// The signed-in user, for routes that accept no API keys: those without a scope.
    ///
    /// # Errors
    /// As [`Self::caller`]; [`Code::ApiKeyNotAccepted`] for a service.
    pub fn signed_in_user(&self) -> Result<&SignedInUser, Problem> {
        match self.caller()? {
            Caller::User(user) => Ok(user),
            Caller::ApiKey(_) => Err(Problem::api_key_not_accepted()),
        }
    }

    /// The principal on whose behalf PostgreSQL is queried.
    ///
    /// # Errors
    /// As [`Self::caller`].
    pub fn principal(&self) -> Result<Principal, Problem> {
        Ok(match self.caller()? {
            Caller::User(user) => Principal::User(user.id),
            Caller::ApiKey(caller) => Principal::ApiKey(caller.key),
        })
    }

    /// The author of a configuration change, for the history.
    ///
    /// # Errors
    /// As [`Self::caller`].
    pub fn author(&self) -> Result<Author, Problem> {
        Ok(match self.caller()? {
            Caller::User(user) => Author::User(user.id, user.name.clone()),
            Caller::ApiKey(caller) => Author::ApiKey(caller.name.clone()),
        })
    }

    /// An id from the path, `{name}` in the route's template.
    ///
    /// # Errors
    /// [`Code::NotFound`] when it is malformed, as for an unknown id.
    pub fn path<T: FromStr>(&self, name: &str) -> Result<T, Problem> {
        self.parameter(name).and_then(|text| text.parse().ok()).ok_or_else(Problem::not_found)
    }

    /// A parameter of the path as text, percent-decoded.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The query, which may contain only the parameters in `known`, once each.
    ///
    /// # Errors
    /// [`Code::ValidationFailed`] for unknown and repeated parameters; [`Code::MalformedRequest`] for invalid encoding.
    pub fn query(&self, known: &[&str]) -> Result<Query, Problem> {
        query::parse(self.uri.query().unwrap_or_default(), known)
    }

    /// An optional header as text.
    ///
    /// # Errors
    /// [`Code::MalformedRequest`] when it is repeated or not visible ASCII.
    pub fn header(&self, name: &'static str) -> Result<Option<&str>, Problem> {
        let malformed = |detail: &str| {
            Problem::new(Code::MalformedRequest, "A header is malformed; `errors` names it.")
                .errors(vec![FieldError::header(name, detail)])
        };
        let mut values = self.headers.get_all(HeaderName::from_static(name)).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(malformed("must not be repeated"));
        }
        value.to_str().map(Some).map_err(|_| malformed("must be visible ASCII"))
    }

    /// The condition in `If-Match`, which is required.
    ///
    /// # Errors
    /// [`Code::PreconditionRequired`] when the header is missing, [`Code::MalformedRequest`] when it is malformed.
    pub fn if_match(&self) -> Result<IfMatch, Problem> {
        IfMatch::parse(self.header("if-match")?)
    }

    /// The complete body, up to the route's limit. May be called again.
    ///
    /// # Errors
    /// [`Code::BodyTooLarge`]; [`Code::MalformedRequest`] when it is incomplete or does not arrive in time.
    pub async fn bytes(&mut self) -> Result<Bytes, Problem> {
        self.body.bytes().await
    }

    /// The parsed body.
    ///
    /// # Errors
    /// As [`Self::bytes`]; [`Code::UnsupportedMediaType`] and [`Code::MalformedJson`] when it is not JSON, and
    /// [`Code::ValidationFailed`] with all errors in its fields.
    pub async fn body<B: RequestBody>(&mut self) -> Result<B, Problem> {
        // Checked first, so that a body of another type is not received.
        body::require_json(&self.headers)?;
        let mut object = Object::parse(&self.bytes().await?)?;
        let body = B::take(&mut object);
        object.finish(body)
    }

    /// Like [`Self::body`]; `None` if the body is empty.
    ///
    /// # Errors
    /// As [`Self::body`].
    pub async fn optional_body<B: RequestBody>(&mut self) -> Result<Option<B>, Problem> {
        if self.bytes().await?.is_empty() {
            return Ok(None);
        }
        self.body().await.map(Some)
    }

    /// The body as lines of at most `longest` bytes, up to the route's limit. It must arrive within `time`.
    ///
    /// # Errors
    /// [`Code::UnsupportedMediaType`] when it is not declared as `media_type`.
    pub fn lines(&mut self, media_type: &str, longest: usize, time: Duration) -> Result<Lines, Problem> {
        body::require_type(&self.headers, media_type)?;
        self.body.lines(longest, time).ok_or_else(|| Problem::internal("the body was taken before"))
    }

    /// For operations without input: checks that the body is missing or an empty object.
    ///
    /// # Errors
    /// As [`Self::body`].
    pub async fn no_fields(&mut self) -> Result<(), Problem> {
        self.optional_body::<Empty>().await.map(drop)
    }

    /// The status of the rate limit that the request was counted against.
    #[must_use]
    pub fn quota_status(&self) -> Option<QuotaStatus> {
        self.quota_status
    }

    /// Sets the status of a rate limit, which the response headers report to the caller.
    pub fn set_quota_status(&mut self, status: QuotaStatus) {
        self.quota_status = Some(status);
    }

    /// Clears it, because the request exceeded another limit and the response has the headers of that limit.
    pub fn clear_quota_status(&mut self) {
        self.quota_status = None;
    }
}
