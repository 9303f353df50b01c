//! The id of a request: 32 hexadecimal digits in the header `x-request-id` of its response, in its problem and in every
//! log record about it.
//!
//! The API generates all ids, so that an id names one request. A client's own id is only logged next to it.

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// The header of the id.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// A new id.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "every call returns a different value")]
    pub fn new() -> Self {
        Self(Uuid::now_v7().simple().to_string())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The client's own id, if it is safe to log: 1 to 64 letters, digits, `-` or `_`.
#[must_use]
pub fn client_request_id(headers: &HeaderMap) -> Option<String> {
    let is_safe = |id: &&[u8]| {
        (1..=64).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(b))
    };
    let id = headers.get(X_REQUEST_ID).map(HeaderValue::as_bytes).filter(is_safe)?;
    Some(String::from_utf8_lossy(id).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_id(value: &[u8]) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_bytes(value).unwrap_or(HeaderValue::from_static("")));
        client_request_id(&headers)
    }

    #[test]
    fn only_safe_client_ids_are_logged() {
        assert_eq!(client_id(b"trace-1_A").as_deref(), Some("trace-1_A"));
        for wrong in [&b""[..], b"a b", b"\"", b"\xff", &[b'a'; 65]] {
            assert_eq!(client_id(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn an_id_is_32_hexadecimal_digits() {
        let id = RequestId::new();
        assert!(
            id.as_str().len() == 32 && id.as_str().bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{id:?}"
        );
    }
}
