//! Errors: [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problem documents, from one closed list of codes.
//!
//! A handler returns a [`Problem`] instead of a response. The client gets the code and its title, a detail for people,
//! and pointers to the invalid values. The internal cause is logged with the request's id, and never sent.
//!
//! A title is a noun phrase. A detail is one sentence that states what is wrong with which value, and what to do. A
//! [`FieldError`]'s detail is a phrase that follows the name of its field: "must be a string".

use std::{borrow::Cow, fmt};

use atrium_shared::{db::DbError, organizations::OrganizationError, tenancy::Role};
use http::{HeaderName, HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    request_id::RequestId,
    schema::{Component, component},
};

/// Declares the codes. A test compares the catalog in `docs/api/error-catalog.md` with this list.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $status:ident, $code:literal, $title:literal, $retry:literal;)*) => {
        /// Every error of the API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
        pub enum Code { $($(#[$doc])* #[serde(rename = $code)] $name,)* }

        impl Code {
            /// All codes.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name in responses, logs and the catalog.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The HTTP status of every response with this code.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// The title: a noun phrase of at most five words that never changes.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// The Retry entry of the catalog: whether repeating the request is safe, and when it is useful.
            #[must_use]
            pub fn retry(self) -> &'static str {
                match self { $(Self::$name => $retry,)* }
            }
        }
    };
}

codes! {
    /// The request, one of its headers or its query is malformed.
    MalformedRequest = BAD_REQUEST, "malformed_request", "Malformed request",
        "Safe, and useful only if the connection broke in the middle of the body.";
    /// The body is not JSON.
    MalformedJson = BAD_REQUEST, "malformed_json", "Malformed JSON",
        "Safe, but it fails again with the same body.";
    /// The token is missing or invalid.
    Unauthenticated = UNAUTHORIZED, "unauthenticated", "Missing or invalid credentials",
        "Safe, and useful with a valid token.";
    /// The refresh token was used before. It may have been copied, so its sign-in session was ended.
    RefreshTokenReused = UNAUTHORIZED, "refresh_token_reused", "Reused refresh token",
        "Safe, but it fails again with any token of this sign-in.";
    /// A browser sent the cookie with a request that another site made.
    CrossSiteRequest = FORBIDDEN, "cross_site_request", "Cross-site request",
        "Safe, but it fails again from the same page.";
    /// The route accepts no API keys.
    ApiKeyNotAccepted = FORBIDDEN, "api_key_not_accepted", "API key not accepted",
        "Safe, but it fails again with any API key.";
    /// The API key lacks the scope of the route.
    ApiKeyScopeMissing = FORBIDDEN, "api_key_scope_missing", "Missing API key scope",
        "Safe, but it fails again with the same key.";
    /// The member's role is too low.
    Forbidden = FORBIDDEN, "forbidden", "Insufficient role",
        "Safe, and useful once your role is higher.";
    /// The organization is suspended: it can be read, but not changed.
    OrganizationSuspended = FORBIDDEN, "organization_suspended", "Suspended organization",
        "Safe, and useful once the organization is resumed.";
    /// The organization is being deleted: it can be read, but not changed.
    OrganizationDeleting = FORBIDDEN, "organization_deleting", "Organization in deletion",
        "Safe, and useful once the deletion is canceled.";
    /// Only the operator may set the key.
    ConfigOperatorOnly = FORBIDDEN, "config_operator_only", "Operator-only configuration key",
        "Safe, but it fails again: only the operator can set this key.";
    /// The resource does not exist, or the caller is not allowed to see it.
    NotFound = NOT_FOUND, "not_found", "Resource not found",
        "Safe, but it fails again unless you have been invited since.";
    /// The API has no such path.
    RouteNotFound = NOT_FOUND, "route_not_found", "Route not found",
        "Safe, but it fails again with the same path.";
    /// The invitation code is not valid.
    InvitationNotFound = NOT_FOUND, "invitation_not_found", "Invitation not found",
        "Safe, but it fails again with the same code.";
    /// There is no such configuration key.
    ConfigKeyUnknown = NOT_FOUND, "config_key_unknown", "Unknown configuration key",
        "Safe, but it fails again: the keys are part of the release.";
    /// The path exists, but not with this method.
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed",
        "Safe, but it fails again with the same method.";
    /// The saga that creates the organization has not committed.
    OrganizationNotReady = CONFLICT, "organization_not_ready", "Organization not ready",
        "Safe, and useful once the organization is `COMMITTED`.";
    /// The organization has as many projects or members as the operator allows.
    QuotaReached = CONFLICT, "quota_reached", "Organization quota reached",
        "Safe, and useful once there is room.";
    /// The change would leave the organization without an owner.
    LastOwner = CONFLICT, "last_owner", "Last owner",
        "Safe, and useful once there is another owner.";
    /// There is no deletion to cancel.
    OrganizationNotDeleting = CONFLICT, "organization_not_deleting", "Organization not in deletion",
        "Safe, but it fails again.";
    /// The operation has ended, or has passed the last step that can be undone.
    OperationNotCancelable = CONFLICT, "operation_not_cancelable", "Operation not cancelable",
        "Safe, but it fails again.";
    /// The first request with this idempotency key is still running.
    IdempotencyInFlight = CONFLICT, "idempotency_in_flight", "Idempotency key in flight",
        "Safe with the same key, and useful after a second: the answer is the first request's.";
    /// The resource was already created with this idempotency key. The response contained a secret, so it is not
    /// stored.
    ResponseNotStored = CONFLICT, "response_not_stored", "Response not stored",
        "Safe, but it fails again with the same key.";
    /// The user has the maximum number of open chat sessions, and the configuration says to reject new ones.
    ChatSessionLimit = CONFLICT, "chat_session_limit", "Chat session limit reached",
        "Safe, and useful once another session is closed or has expired.";
    /// The chat session has ended.
    ChatSessionClosed = CONFLICT, "chat_session_closed", "Closed chat session",
        "Safe, but it fails again in the same session.";
    /// The resource has changed since it was read.
    PreconditionFailed = PRECONDITION_FAILED, "precondition_failed", "Precondition failed",
        "Safe, but it fails again with the same `If-Match`.";
    /// The body is larger than the route accepts.
    BodyTooLarge = PAYLOAD_TOO_LARGE, "body_too_large", "Body too large",
        "Safe, but it fails again with the same body.";
    /// The body is declared with a media type that the route does not accept.
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Unsupported media type",
        "Safe, but it fails again with the same `Content-Type`.";
    /// A field of the body or a parameter of the query is invalid.
    ValidationFailed = UNPROCESSABLE_ENTITY, "validation_failed", "Invalid request",
        "Safe, but it fails again with the same request.";
    /// The idempotency key was used before with a different body.
    IdempotencyKeyReused = UNPROCESSABLE_ENTITY, "idempotency_key_reused", "Reused idempotency key",
        "Safe, but it fails again with the same key and body.";
    /// The configuration key cannot be set at this scope.
    ConfigScopeNotAllowed = UNPROCESSABLE_ENTITY, "config_scope_not_allowed", "Configuration scope not allowed",
        "Safe, but it fails again at the same scope.";
    /// The value does not match the key's schema.
    ConfigValueInvalid = UNPROCESSABLE_ENTITY, "config_value_invalid", "Invalid configuration value",
        "Safe, but it fails again with the same value.";
    /// The body is not an export, is incomplete, or cannot be imported by this release.
    ImportInvalid = UNPROCESSABLE_ENTITY, "import_invalid", "Invalid export",
        "Safe, but it fails again with the same body.";
    /// The project's configuration does not offer the action.
    ChatActionNotOffered = UNPROCESSABLE_ENTITY, "chat_action_not_offered", "Chat action not offered",
        "Safe, but it fails again until the project's configuration offers the action.";
    /// The update lacks `If-Match`, which names the version that it changes.
    PreconditionRequired = PRECONDITION_REQUIRED, "precondition_required", "Missing If-Match header",
        "Safe, but it fails again without the header.";
    /// The organization exceeds its quota of requests or of open streams.
    QuotaExceeded = TOO_MANY_REQUESTS, "quota_exceeded", "Organization quota exceeded",
        "Safe, and useful after `Retry-After`.";
    /// The user or the address exceeded a rate limit.
    RateLimited = TOO_MANY_REQUESTS, "rate_limited", "Rate limit exceeded",
        "Safe, and useful after `Retry-After`.";
    /// A bug in Atrium.
    Internal = INTERNAL_SERVER_ERROR, "internal", "Internal error",
        "Safe for reads. A change may have been made: read the resource first, or repeat it with the same `Idempotency-Key` or `If-Match`, which cannot take effect twice.";
    /// PostgreSQL or Redis cannot be reached, or the process has reached one of its own limits.
    Unavailable = SERVICE_UNAVAILABLE, "unavailable", "Service unavailable",
        "Safe for reads, and useful after `Retry-After`. A change was not made, unless the connection to the database broke during its commit: repeat it with the same `Idempotency-Key` or `If-Match`, which cannot take effect twice, or read the resource first.";
}

/// One error in a request, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FieldError {
    /// A JSON pointer into the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The name of a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<&'static str>,
    /// The name of a query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// What is wrong, for people.
    pub detail: String,
    /// What is wrong, for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
}

impl FieldError {
    /// An error in the body. `pointer` is a JSON pointer, `""` for the whole body.
    pub fn body(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            pointer: Some(pointer.into()),
            header: None,
            parameter: None,
            detail: detail.into(),
            code: None,
        }
    }

    /// An error in a header.
    pub fn header(header: &'static str, detail: impl Into<String>) -> Self {
        Self { pointer: None, header: Some(header), parameter: None, detail: detail.into(), code: None }
    }

    /// An error in the query.
    pub fn parameter(parameter: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            pointer: None,
            header: None,
            parameter: Some(parameter.into()),
            detail: detail.into(),
            code: None,
        }
    }

    /// Adds a code for programs.
    #[must_use]
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }
}

/// The maximum number of errors in one response. A small body can contain thousands, and the response would be many
/// times as large as the request.
pub const MAX_ERRORS: usize = 50;

/// An error that is returned to the client as a problem document.
pub struct Problem(Box<Parts>);

/// The document that is sent.
#[derive(Serialize, JsonSchema)]
struct Document<'a> {
    #[schemars(extend("format" = "uri-reference"))]
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: Code,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

struct Parts {
    code: Code,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<String>,
}

impl Problem {
    /// An error with a detail for people.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Parts {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            headers: Vec::new(),
            cause: None,
        }))
    }

    /// The resource does not exist or is not visible to the caller. Both have the same text, so that a client cannot
    /// tell them apart.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(Code::NotFound, "Not found.")
    }

    /// The caller is not authenticated.
    pub fn unauthenticated(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unauthenticated, detail).challenge()
    }

    /// The refresh token was used before.
    #[must_use]
    pub fn refresh_token_reused() -> Self {
        let detail = "This refresh token was used before, so somebody may have a copy of it; sign in again.";
        Self::new(Code::RefreshTokenReused, detail).challenge()
    }

    /// A service called an operation that only signed-in users may call.
    #[must_use]
    pub fn api_key_not_accepted() -> Self {
        Self::new(
            Code::ApiKeyNotAccepted,
            "This operation accepts no API keys, whatever their scopes; sign in as a user.",
        )
    }

    /// Adds `WWW-Authenticate`, which HTTP requires in every 401.
    fn challenge(self) -> Self {
        self.header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"atrium\""))
    }

    /// The member's role is lower than `required`.
    #[must_use]
    pub fn forbidden(required: Role) -> Self {
        let name = match required {
            Role::Viewer => "viewer",
            Role::Member => "member",
            Role::Admin => "admin",
            Role::Owner => "owner",
        };
        Self::new(
            Code::Forbidden,
            format!(
                "This operation needs the role `{name}` in the organization; ask an admin or an owner of it."
            ),
        )
    }

    /// The request has these errors.
    #[must_use]
    pub fn validation(errors: Vec<FieldError>) -> Self {
        Self::new(Code::ValidationFailed, "The request is invalid; `errors` lists what to correct.")
            .errors(errors)
    }

    /// The body is larger than the route accepts.
    #[must_use]
    pub fn body_too_large(limit: usize) -> Self {
        Self::new(
            Code::BodyTooLarge,
            format!("The body is larger than {limit} bytes, the limit of this route; send less."),
        )
    }

    /// The first request with this idempotency key is still running.
    #[must_use]
    pub fn idempotency_in_flight() -> Self {
        Self::new(
            Code::IdempotencyInFlight,
            "The first request with this `Idempotency-Key` is still running; repeat this one for its response.",
        )
        .header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// A service that Atrium needs cannot be reached.
    pub fn unavailable(cause: impl fmt::Display) -> Self {
        Self::new(
            Code::Unavailable,
            "A service that Atrium needs cannot be reached; try again after `Retry-After`.",
        )
        .header(header::RETRY_AFTER, HeaderValue::from_static("1"))
        .cause(cause)
    }

    /// A bug in Atrium.
    pub fn internal(cause: impl fmt::Display) -> Self {
        Self::new(Code::Internal, "This is a bug in Atrium; report the `request_id` to the operator.")
            .cause(cause)
    }

    /// Adds at most [`MAX_ERRORS`] of these errors.
    #[must_use]
    pub fn errors(mut self, mut errors: Vec<FieldError>) -> Self {
        errors.truncate(MAX_ERRORS);
        self.0.errors = errors;
        self
    }

    /// Adds a header to the response.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Attaches the internal cause. It is logged, not sent.
    #[must_use]
    pub fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.0.cause = Some(cause.to_string());
        self
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The value of `Retry-After` in seconds; 0 without the header.
    #[must_use]
    pub fn retry_after_seconds(&self) -> u64 {
        let header = self.0.headers.iter().find(|(name, _)| name == header::RETRY_AFTER);
        header.and_then(|(_, value)| value.to_str().ok()?.parse().ok()).unwrap_or(0)
    }

    /// The internal cause, for the log.
    #[must_use]
    pub fn internal_cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// The document that is sent, as JSON.
    pub(super) fn document(&self, request_id: &RequestId) -> Vec<u8> {
        let Parts { code, detail, errors, .. } = &*self.0;
        let document = Document {
            r#type: format!("/docs/errors#{}", code.name()),
            title: code.title(),
            status: code.status().as_u16(),
            detail,
            code: *code,
            request_id: request_id.as_str(),
            errors,
        };
        // The document contains only strings and numbers, so this cannot fail.
        serde_json::to_vec(&document).unwrap_or_default()
    }

    /// The headers to add to the response.
    pub(super) fn into_headers(self) -> Vec<(HeaderName, HeaderValue)> {
        self.0.headers
    }
}

/// The schemas of the documents that this module sends, for the test of the API description.
pub(crate) fn components() -> Vec<Component> {
    vec![
        component::<Document<'static>>("Problem"),
        component::<FieldError>("ProblemItem"),
        component::<Code>("ProblemCode"),
    ]
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Problem")
            .field("code", &self.0.code)
            .field("detail", &self.0.detail)
            .field("errors", &self.0.errors)
            .field("cause", &self.0.cause)
            .finish_non_exhaustive()
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        match error {
            DbError::NotFound => Self::not_found(),
            DbError::Constraint(name) => from_constraint(&name),
            DbError::Unavailable(_) => Self::unavailable(error),
            DbError::Unexpected(_) => Self::internal(error),
        }
    }
}

impl From<OrganizationError> for Problem {
    fn from(error: OrganizationError) -> Self {
        match error {
            OrganizationError::Forbidden { required } => Self::forbidden(required),
            OrganizationError::NotReady => Self::new(
                Code::OrganizationNotReady,
                "The organization cannot be changed because its creation has not finished or has failed; see its operation.",
            ),
            OrganizationError::Suspended => Self::new(
                Code::OrganizationSuspended,
                "The organization is suspended: it can be read and exported, but not changed until it is resumed.",
            ),
            OrganizationError::Deleting => Self::new(
                Code::OrganizationDeleting,
                "The organization is being deleted: it can be read and exported, but not changed unless its deletion is canceled.",
            ),
            OrganizationError::NotDeleting => Self::new(
                Code::OrganizationNotDeleting,
                "The organization is not being deleted, so there is no deletion to cancel.",
            ),
            OrganizationError::LastOwner => Self::new(
                Code::LastOwner,
                "The organization has no other owner. Make another member an owner first.",
            ),
            OrganizationError::Database(error) => error.into(),
        }
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        DbError::from(error).into()
    }
}

/// Maps the constraints that a valid request can violate because of a race with another request. All other constraints
/// are also checked in code before, so violating one is a bug.
fn from_constraint(name: &str) -> Problem {
    match name {
        // The project, or the whole organization, was deleted while the request ran.
        "chat_sessions_project_fkey"
        | "chat_counters_project_fkey"
        | "config_values_project_fkey"
        | "projects_org_fkey"
        | "invitations_org_fkey"
        | "api_keys_org_fkey"
        | "audit_log_org_fkey"
        | "revoked_access_org_fkey"
        | "idempotency_keys_org_fkey"
        | "members_org_fkey" => Problem::not_found(),
        "idempotency_keys_pkey" => Problem::idempotency_in_flight(),
        _ => Problem::internal(format_args!("the constraint {name} was violated")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn code_names_are_unique() {
        let names: HashSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn titles_are_short_and_unique() {
        let titles: HashSet<_> = Code::ALL.iter().map(|code| code.title()).collect();
        assert_eq!(titles.len(), Code::ALL.len());
        for title in titles {
            assert!((1..=5).contains(&title.split_whitespace().count()), "{title}: more than five words");
            assert!(!title.ends_with('.'), "{title}: ends like a sentence");
        }
    }
}
