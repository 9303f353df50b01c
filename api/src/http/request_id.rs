//! The id of a request: the client's if it is safe to log and to return, otherwise a new one.

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// The header of the id, in requests and responses.
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

    /// The client's id if it is 1 to 64 letters, digits, `-` or `_`; otherwise a new one.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let fits = |id: &&[u8]| {
            (1..=64).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(b))
        };
        headers
            .get(X_REQUEST_ID)
            .map(HeaderValue::as_bytes)
            .filter(fits)
            .map_or_else(Self::new, |id| Self(String::from_utf8_lossy(id).into_owned()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_bytes(value).unwrap_or(HeaderValue::from_static("")));
        RequestId::of(&headers).0
    }

    #[test]
    fn unsafe_client_ids_are_replaced() {
        assert_eq!(of(b"trace-1_A"), "trace-1_A");
        for wrong in [&b""[..], b"a b", b"\"", b"\xff", &[b'a'; 65]] {
            assert_eq!(of(wrong).len(), 32, "{wrong:?}");
        }
    }
}
