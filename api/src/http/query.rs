//! The query string of a request: known parameters, each at most once; and pages of lists, which `limit` and `cursor`
//! select.

use std::str::FromStr;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    problem::{Code, FieldError, Problem},
    response::List,
};

/// The parameters of a query.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// The value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The requested page of a list: `?limit=` from 1 to 100, and the `?cursor=` from an earlier response.
    ///
    /// # Errors
    /// [`Code::ValidationFailed`] when either is invalid.
    pub fn page<K: DeserializeOwned>(&self) -> Result<Page<K>, Problem> {
        let mut errors = Vec::new();
        let limit = self.get("limit").map_or(Some(50), |text| i64::from_str(text).ok());
        if !limit.is_some_and(|limit| (1..=100).contains(&limit)) {
            errors.push(FieldError::parameter("limit", "must be a whole number from 1 to 100"));
        }
        let after = self.get("cursor").map(decode_cursor);
        if matches!(after, Some(None)) {
            errors.push(FieldError::parameter("cursor", "must be the `next_cursor` of an earlier answer"));
        }
        match (limit, errors.is_empty()) {
            (Some(limit), true) => Ok(Page { limit, after: after.flatten() }),
            _ => Err(Problem::validation(errors)),
        }
    }
}

/// The parameters that every list accepts.
pub const PAGE: &[&str] = &["limit", "cursor"];

/// The requested page of a list.
#[derive(Debug, PartialEq, Eq)]
pub struct Page<K> {
    /// The maximum number of items.
    pub limit: i64,
    /// The key of the last item of the previous page; `None` for the first page.
    pub after: Option<K>,
}

impl<K: Serialize> Page<K> {
    /// Makes the page from up to [`Self::fetch`] items: removes the extra item and, if there was one, adds the cursor
    /// of the next page.
    pub fn cut<T>(&self, mut items: Vec<T>, key: impl Fn(&T) -> K) -> List<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let has_next = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| has_next).map(|last| encode_cursor(&key(last)));
        List { items, next_cursor }
    }

    /// How many items to query: one more than the page has, to detect whether there is a next page.
    #[must_use]
    pub fn fetch(&self) -> i64 {
        self.limit + 1
    }
}

/// A cursor is opaque to clients, so that its format can change. It contains no secret and gives no access.
fn encode_cursor(key: &impl Serialize) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(key).unwrap_or_default())
}

fn decode_cursor<K: DeserializeOwned>(cursor: &str) -> Option<K> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()
}

pub(super) fn parse(query: &str, known: &[&str]) -> Result<Query, Problem> {
    let mut parameters: Vec<(String, String)> = Vec::new();
    let mut errors = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(name), Some(value)) = (decode(name, true), decode(value, true)) else {
            return Err(Problem::new(
                Code::MalformedRequest,
                "The query is not valid percent-encoded UTF-8; correct its encoding.",
            ));
        };
        if !known.contains(&name.as_str()) {
            let name: String = name.chars().take(64).collect();
            errors.push(FieldError::parameter(name, "is not a known parameter").code("unknown"));
        } else if parameters.iter().any(|(seen, _)| *seen == name) {
            errors.push(FieldError::parameter(name, "must not be repeated"));
        } else {
            parameters.push((name, value));
        }
    }
    if errors.is_empty() { Ok(Query(parameters)) } else { Err(Problem::validation(errors)) }
}

/// Decodes percent-encoded UTF-8; in a query, `+` is a space. `None` when it is not well-formed.
pub(crate) fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_percent_encoding_is_rejected() {
        assert_eq!(decode("a%20b+c", false).as_deref(), Some("a b+c"));
        assert_eq!(decode("a%20b+c", true).as_deref(), Some("a b c"));
        for wrong in ["%", "%4", "%zz", "%ff", "%+1"] {
            assert_eq!(decode(wrong, true), None, "{wrong}");
        }
    }

    #[test]
    fn unknown_and_repeated_parameters_are_rejected() {
        let code = |query| parse(query, PAGE).map(|_| ()).map_err(|problem| problem.code());
        assert_eq!(code("limit=3&cursor=x&"), Ok(()));
        assert_eq!(code("limit=3&limit=4"), Err(Code::ValidationFailed));
        assert_eq!(code("offset=3"), Err(Code::ValidationFailed));
        assert_eq!(code("limit=%f"), Err(Code::MalformedRequest));
    }

    #[test]
    fn the_cursor_continues_after_the_last_item_of_a_page() {
        let page = |query: &str| parse(query, PAGE).and_then(|query| query.page::<i64>());
        let first = page("limit=2").expect("a page");
        let list = first.cut(vec![1_i64, 2, 3], |item| *item);
        assert_eq!(list.items, [1, 2]);
        let cursor = list.next_cursor.expect("there is more");
        assert_eq!(page(&format!("cursor={cursor}")).expect("a page"), Page { limit: 50, after: Some(2) });
        assert!(first.cut(vec![1_i64, 2], |item| *item).next_cursor.is_none());
        for wrong in ["limit=0", "limit=101", "limit=x", "limit=", "cursor=!", "cursor="] {
            assert!(page(wrong).is_err(), "{wrong}");
        }
    }
}
