//! Refusals: [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problem documents, from one closed list of codes.
//!
//! A [`Problem`] is what a handler returns instead of an answer. What the client reads is its code's title, a
//! detail written for people, and pointers to what was wrong. What went wrong *inside* is its cause: logged with
//! the request's id, never sent.

use std::{borrow::Cow, fmt};

use atrium_shared::{db::DbError, organizations::OrganizationError, tenancy::Role};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use super::request_id::RequestId;

/// Declares the codes once; the catalog in `docs/api/error-catalog.md` is tested against this list.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $status:ident, $code:literal, $title:literal, $retry:literal;)*) => {
        /// Every way to be refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// All codes.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name in answers, logs and the catalog.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The HTTP status this code always comes with.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// What happened, in a few words that never change.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// Whether, and when, the same request is worth sending again.
            #[must_use]
            pub fn retry(self) -> &'static str {
                match self { $(Self::$name => $retry,)* }
            }
        }
    };
}

codes! {
    /// The request is not HTTP as this API speaks it.
    MalformedRequest = BAD_REQUEST, "malformed_request", "The request cannot be understood", "no";
    /// The body is no JSON.
    MalformedJson = BAD_REQUEST, "malformed_json", "The body is not valid JSON", "no";
    /// The id to resume from was not made by this stream.
    LastEventIdInvalid = BAD_REQUEST, "last_event_id_invalid", "The last event id is not one of this stream", "without the id";
    /// No token, or one that does not hold.
    Unauthenticated = UNAUTHORIZED, "unauthenticated", "Sign in first", "after signing in";
    /// A refresh token that was used before: somebody has a copy, so the whole sign-in is over.
    RefreshTokenReused = UNAUTHORIZED, "refresh_token_reused", "This sign-in was ended for safety", "after signing in";
    /// A browser sent a cookie along with a request that another site made.
    CrossSiteRequest = FORBIDDEN, "cross_site_request", "Requests from other sites are refused", "no";
    /// The route takes no keys of services.
    ApiKeyNotAccepted = FORBIDDEN, "api_key_not_accepted", "This address takes no API keys", "as a person";
    /// The service's key is not for this.
    ApiKeyScopeMissing = FORBIDDEN, "api_key_scope_missing", "The API key has not the scope for this", "with another key";
    /// The member's role is too low.
    Forbidden = FORBIDDEN, "forbidden", "Your role does not allow this", "no";
    /// The organization can be read, not changed.
    OrganizationSuspended = FORBIDDEN, "organization_suspended", "The organization is suspended", "when it is COMMITTED";
    /// The organization can be read, not changed, and will soon be gone.
    OrganizationDeleting = FORBIDDEN, "organization_deleting", "The organization is being deleted", "when it is COMMITTED";
    /// The key is the operator's to set.
    ConfigOperatorOnly = FORBIDDEN, "config_operator_only", "Only the operator may set this key", "no";
    /// Not there, or not for this caller to know about.
    NotFound = NOT_FOUND, "not_found", "There is nothing here for you", "no";
    /// The API has no such address.
    RouteNotFound = NOT_FOUND, "route_not_found", "The API has no such address", "no";
    /// The invitation code opens nothing.
    InvitationNotFound = NOT_FOUND, "invitation_not_found", "This invitation cannot be accepted", "no";
    /// There is no such configuration key.
    ConfigKeyUnknown = NOT_FOUND, "config_key_unknown", "There is no such configuration key", "no";
    /// The address exists, the method does not.
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method_not_allowed", "This address does not take that method", "no";
    /// The organization's saga has not committed.
    OrganizationNotReady = CONFLICT, "organization_not_ready", "The organization is not ready", "when it is COMMITTED";
    /// The organization has as much of it as the operator allows.
    QuotaReached = CONFLICT, "quota_reached", "The organization has as many as it may", "when there is room";
    /// Somebody has to own the organization.
    LastOwner = CONFLICT, "last_owner", "An organization needs an owner", "after making another owner";
    /// There is no deletion to cancel.
    OrganizationNotDeleting = CONFLICT, "organization_not_deleting", "The organization is not being deleted", "no";
    /// It has ended, or has passed the point from which it can be taken back.
    OperationNotCancelable = CONFLICT, "operation_not_cancelable", "The operation cannot be canceled any more", "no";
    /// The same idempotency key is at work now.
    IdempotencyInFlight = CONFLICT, "idempotency_in_flight", "The first request with this key is still at work", "after a moment";
    /// It was made under this key before, and the answer held a secret, which is not kept.
    AnswerNotKept = CONFLICT, "answer_not_kept", "It was made before, and the answer is not kept", "with a new key";
    /// All sessions are taken, and the configuration says to refuse.
    ChatSessionLimit = CONFLICT, "chat_session_limit", "Too many open chat sessions", "after closing one";
    /// The session is over.
    ChatSessionClosed = CONFLICT, "chat_session_closed", "The chat session is closed", "in a new session";
    /// Somebody else changed it first.
    PreconditionFailed = PRECONDITION_FAILED, "precondition_failed", "It was changed in the meantime", "after reading it again";
    /// The body is larger than this address takes.
    BodyTooLarge = PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large", "no";
    /// The body is not declared as what this address takes.
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body is of another media type", "no";
    /// Something in the body or the query is not as it must be.
    ValidationFailed = UNPROCESSABLE_ENTITY, "validation_failed", "The request is not valid", "no";
    /// The same idempotency key came with another body.
    IdempotencyKeyReused = UNPROCESSABLE_ENTITY, "idempotency_key_reused", "The idempotency key was used for another request", "with a new key";
    /// The key cannot be set there.
    ConfigScopeNotAllowed = UNPROCESSABLE_ENTITY, "config_scope_not_allowed", "This key cannot be set at this scope", "no";
    /// The value breaks the key's schema.
    ConfigValueInvalid = UNPROCESSABLE_ENTITY, "config_value_invalid", "The value does not fit the key's schema", "no";
    /// The body is no export, or not a whole one, or not one that this release can import.
    ImportInvalid = UNPROCESSABLE_ENTITY, "import_invalid", "This export cannot be imported", "no";
    /// The project's configuration does not offer the action.
    ChatActionNotOffered = UNPROCESSABLE_ENTITY, "chat_action_not_offered", "This action is not offered here", "no";
    /// An update must say what it changes.
    PreconditionRequired = PRECONDITION_REQUIRED, "precondition_required", "If-Match is required", "with If-Match";
    /// The organization has used up what the operator grants it.
    QuotaExceeded = TOO_MANY_REQUESTS, "quota_exceeded", "The organization's quota is used up", "after Retry-After";
    /// Too many requests.
    RateLimited = TOO_MANY_REQUESTS, "rate_limited", "Too many requests", "after Retry-After";
    /// A defect of Atrium.
    Internal = INTERNAL_SERVER_ERROR, "internal", "Something went wrong inside Atrium", "once";
    /// PostgreSQL or Redis is away, or the process is full.
    Unavailable = SERVICE_UNAVAILABLE, "unavailable", "Atrium cannot do this right now", "after Retry-After";
}

/// Where a mistake is, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    /// What is wrong, for a person.
    pub detail: String,
    /// What is wrong, for a program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
}

impl FieldError {
    /// A mistake in the body. `pointer` is a JSON pointer, `""` for the whole.
    pub fn body(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            pointer: Some(pointer.into()),
            header: None,
            parameter: None,
            detail: detail.into(),
            code: None,
        }
    }

    /// A mistake in a header.
    pub fn header(header: &'static str, detail: impl Into<String>) -> Self {
        Self { pointer: None, header: Some(header), parameter: None, detail: detail.into(), code: None }
    }

    /// A mistake in the query.
    pub fn parameter(parameter: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            pointer: None,
            header: None,
            parameter: Some(parameter.into()),
            detail: detail.into(),
            code: None,
        }
    }

    /// Names the mistake for programs.
    #[must_use]
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }
}

/// The most mistakes that one answer names. A small body can hold thousands, and the answer would be many times as
/// large as what it answers.
pub const MOST_ERRORS: usize = 50;

/// A refusal.
pub struct Problem(Box<Parts>);

struct Parts {
    code: Code,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<String>,
}

impl Problem {
    /// A refusal with a detail for people.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Parts {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            headers: Vec::new(),
            cause: None,
        }))
    }

    /// Not there, or not yours: the same words for both, wherever they are said.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(Code::NotFound, "It does not exist, or you are not a member of its organization.")
    }

    /// Who calls is not known.
    pub fn unauthenticated(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unauthenticated, detail).challenge()
    }

    /// Somebody has a copy of the refresh token.
    #[must_use]
    pub fn refresh_token_reused() -> Self {
        let detail = "The refresh token was used before, so somebody may have a copy of it. Sign in again.";
        Self::new(Code::RefreshTokenReused, detail).challenge()
    }

    /// A service asks for what only people may do.
    #[must_use]
    pub fn api_key_not_accepted() -> Self {
        Self::new(
            Code::ApiKeyNotAccepted,
            "Only somebody who is signed in may do this, whatever the key's scopes.",
        )
    }

    /// Says how to authenticate, as every 401 has to.
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
        Self::new(Code::Forbidden, format!("This needs the role {name} in the organization."))
    }

    /// Mistakes in what was sent.
    #[must_use]
    pub fn validation(errors: Vec<FieldError>) -> Self {
        Self::new(Code::ValidationFailed, "Some of what was sent is not as it must be; see errors.")
            .errors(errors)
    }

    /// The body is larger than the route takes.
    #[must_use]
    pub fn body_too_large(limit: usize) -> Self {
        Self::new(Code::BodyTooLarge, format!("This address takes a body of at most {limit} bytes."))
    }

    /// The first request with this idempotency key has not ended yet.
    #[must_use]
    pub fn idempotency_in_flight() -> Self {
        Self::new(
            Code::IdempotencyInFlight,
            "Another request with this Idempotency-Key is at work; send this one again for its answer.",
        )
        .header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// Something Atrium needs is away.
    pub fn unavailable(cause: impl fmt::Display) -> Self {
        Self::new(Code::Unavailable, "A part of Atrium is not reachable right now; try again.")
            .header(header::RETRY_AFTER, HeaderValue::from_static("1"))
            .cause(cause)
    }

    /// A defect.
    pub fn internal(cause: impl fmt::Display) -> Self {
        Self::new(Code::Internal, "This is a defect of Atrium. The request's id leads to its log lines.")
            .cause(cause)
    }

    /// Adds pointers to what was wrong; to the first of it, when there is very much.
    #[must_use]
    pub fn errors(mut self, mut errors: Vec<FieldError>) -> Self {
        errors.truncate(MOST_ERRORS);
        self.0.errors = errors;
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Remembers what went wrong inside, for the log.
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

    /// How long to wait before trying again, as `Retry-After` says; 0 where it says nothing.
    #[must_use]
    pub fn retry_after_seconds(&self) -> u64 {
        let header = self.0.headers.iter().find(|(name, _)| name == header::RETRY_AFTER);
        header.and_then(|(_, value)| value.to_str().ok()?.parse().ok()).unwrap_or(0)
    }

    /// What went wrong inside.
    #[must_use]
    pub fn internal_cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// The document that is sent, as JSON.
    pub(super) fn document(&self, request_id: &RequestId) -> Vec<u8> {
        #[derive(Serialize)]
        struct Document<'a> {
            r#type: String,
            title: &'static str,
            status: u16,
            detail: &'a str,
            code: &'static str,
            request_id: &'a str,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [FieldError],
        }
        let Parts { code, detail, errors, .. } = &*self.0;
        let document = Document {
            r#type: format!("/docs/errors#{}", code.name()),
            title: code.title(),
            status: code.status().as_u16(),
            detail,
            code: code.name(),
            request_id: request_id.as_str(),
            errors,
        };
        // Strings and numbers only: this cannot fail, and an empty body would still carry the status.
        serde_json::to_vec(&document).unwrap_or_default()
    }

    /// The headers to add to the answer.
    pub(super) fn into_headers(self) -> Vec<(HeaderName, HeaderValue)> {
        self.0.headers
    }
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
                "The organization can be read, but not changed: its creation is not finished, or failed.",
            ),
            OrganizationError::Suspended => Self::new(
                Code::OrganizationSuspended,
                "The organization can be read and exported, but not changed, until it is resumed.",
            ),
            OrganizationError::Deleting => Self::new(
                Code::OrganizationDeleting,
                "The organization can be read and exported, but not changed, unless it is restored.",
            ),
            OrganizationError::NotDeleting => Self::new(
                Code::OrganizationNotDeleting,
                "Nobody has asked for the organization's deletion, or it was canceled.",
            ),
            OrganizationError::LastOwner => Self::new(
                Code::LastOwner,
                "Nobody else owns the organization. Make somebody its owner first.",
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

/// Constraints that a request can run into although it was valid: races with other requests. Every other
/// constraint repeats a check that was made before, so breaking it is a defect.
fn from_constraint(name: &str) -> Problem {
    match name {
        // The project, or the whole organization, was deleted while the request was at work.
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
    fn codes_have_one_name_each() {
        let names: HashSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }
}
