//! Bodies of requests: read within a size limit and a time limit, then parsed strictly.
//!
//! JSON is first parsed into values; repeated fields and nesting deeper than 128 (the parser's own limit) are rejected.
//! Fields are then taken one by one, so that one response lists every error.

use std::{fmt, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use super::{
    body_lines::Lines,
    problem::{Code, FieldError, Problem},
};

/// How long a complete body may take to arrive. hyper has no such limit.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// The body of a request: not received yet, or in memory.
pub(super) struct Reader {
    incoming: Option<Incoming>,
    bytes: Bytes,
    limit: usize,
}

impl Reader {
    pub(super) fn new(incoming: Incoming, limit: usize) -> Self {
        Self { incoming: Some(incoming), bytes: Bytes::new(), limit }
    }

    pub(super) async fn bytes(&mut self) -> Result<Bytes, Problem> {
        if let Some(incoming) = self.incoming.take() {
            self.bytes = match tokio::time::timeout(READ_TIMEOUT, receive(incoming, self.limit)).await {
                Ok(received) => received?,
                Err(_) => {
                    return Err(Problem::new(
                        Code::MalformedRequest,
                        "The body did not arrive in time; send it faster.",
                    ));
                }
            };
        }
        Ok(self.bytes.clone())
    }

    /// The body as lines. `None` if it was already read.
    pub(super) fn lines(&mut self, longest: usize, time: Duration) -> Option<Lines> {
        self.incoming.take().map(|incoming| Lines::new(incoming, self.limit, longest, time))
    }
}

async fn receive(mut incoming: Incoming, limit: usize) -> Result<Bytes, Problem> {
    // A body whose `Content-Length` is too large is rejected before its first byte is read.
    if incoming.size_hint().lower() > limit as u64 {
        return Err(Problem::body_too_large(limit));
    }
    let mut received = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| {
            Problem::new(Code::MalformedRequest, "The body is incomplete or malformed; send it again.")
                .cause(error)
        })?;
        // Trailers are ignored.
        let Ok(data) = frame.into_data() else { continue };
        if received.len() + data.len() > limit {
            return Err(Problem::body_too_large(limit));
        }
        received.extend_from_slice(&data);
    }
    Ok(received.freeze())
}

/// Rejects a body that is not declared as JSON.
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    require_type(headers, "application/json")
}

/// Rejects a body that is not declared as `expected`. Other types must not be accepted, because a browser sends
/// `text/plain` to other sites without a preflight.
pub(super) fn require_type(headers: &HeaderMap, expected: &str) -> Result<(), Problem> {
    let mut declared = headers.get_all(header::CONTENT_TYPE).iter();
    let fits = |value: &str| {
        let (kind, parameters) = value.split_once(';').unwrap_or((value, ""));
        let parameters = parameters.trim().to_ascii_lowercase();
        kind.trim().eq_ignore_ascii_case(expected)
            && ["", "charset=utf-8", "charset=\"utf-8\""].contains(&parameters.as_str())
    };
    match (declared.next().and_then(|value| value.to_str().ok()), declared.next()) {
        (Some(value), None) if fits(value) => Ok(()),
        _ => Err(Problem::new(
            Code::UnsupportedMediaType,
            format!("The body has the wrong media type; send it with `Content-Type: {expected}`."),
        )),
    }
}

/// The error detail of a JSON value that is not an object.
pub const NOT_AN_OBJECT: &str = "must be an object";

/// A JSON object whose fields are taken one by one. Collects the errors in them.
#[derive(Debug)]
pub struct Object {
    fields: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Object {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Problem> {
        Self::read(body)
            .map_err(|error| {
                // The parser's message contains positions and characters, but no values.
                Problem::new(Code::MalformedJson, format!("The body is not valid JSON: {error}."))
            })?
            .ok_or_else(|| Problem::validation(vec![FieldError::body("", NOT_AN_OBJECT)]))
    }

    /// Parses an object that is part of a body. `None` if the text is JSON, but not an object.
    ///
    /// # Errors
    /// When the text is not valid JSON.
    pub fn read(text: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        let Strict(value) = serde_json::from_slice(text)?;
        match value {
            Value::Object(fields) => Ok(Some(Self { fields, errors: Vec::new() })),
            _ => Ok(None),
        }
    }

    /// Takes a required field. `None` if it is missing or invalid.
    pub fn required<T>(&mut self, name: &str, parse: impl FnOnce(Value) -> Result<T, String>) -> Option<T> {
        if self.fields.contains_key(name) {
            self.optional(name, parse).flatten()
        } else {
            self.errors.push(FieldError::body(pointer(name), "is required").code("required"));
            None
        }
    }

    /// Takes an optional field: `Some(None)` if it is missing, `None` if it is invalid.
    pub fn optional<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<Option<T>> {
        match self.fields.remove(name).map(parse) {
            None => Some(None),
            Some(Ok(value)) => Some(Some(value)),
            Some(Err(detail)) => {
                self.errors.push(FieldError::body(pointer(name), detail));
                None
            }
        }
    }

    /// Returns `parsed`, the value built from the fields, if there were no errors. Fields that were not taken are
    /// unknown, which is an error.
    ///
    /// # Errors
    /// [`Code::ValidationFailed`].
    pub fn finish<T>(self, parsed: Option<T>) -> Result<T, Problem> {
        self.close(parsed).map_err(Problem::validation)
    }

    /// Like [`Self::finish`], for callers that make a problem of the errors themselves.
    ///
    /// # Errors
    /// All errors in the fields.
    pub fn close<T>(mut self, parsed: Option<T>) -> Result<T, Vec<FieldError>> {
        self.errors.extend(
            self.fields
                .keys()
                .map(|name| FieldError::body(pointer(name), "is not a known field").code("unknown")),
        );
        match parsed {
            Some(parsed) if self.errors.is_empty() => Ok(parsed),
            _ => Err(self.errors),
        }
    }
}

/// The JSON pointer to a field.
fn pointer(name: &str) -> String {
    // The name is the client's and may be long; the response repeats only its first characters.
    let name: String = name.chars().take(64).collect();
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Accepts any value.
///
/// # Errors
/// Never.
pub fn any(value: Value) -> Result<Value, String> {
    Ok(value)
}

/// Parses one of a type's values, which `expected` describes.
pub fn one_of<T: DeserializeOwned>(expected: &'static str) -> impl FnOnce(Value) -> Result<T, String> {
    move |value| serde_json::from_value(value).map_err(|_| format!("must be {expected}"))
}

/// Parses a whole number within a range, in any notation: JSON has one number type, so `60`, `60.0` and `6e1` are
/// equal.
pub fn integer(range: std::ops::RangeInclusive<i64>) -> impl FnOnce(Value) -> Result<i64, String> {
    move |value| {
        whole(&value)
            .filter(|number| range.contains(number))
            .ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
    }
}

fn whole(value: &Value) -> Option<i64> {
    /// 2^53: up to here, a floating-point number represents every whole number exactly.
    const MAX_EXACT: f64 = 9_007_199_254_740_992.0;
    let exact = |number: f64| number.fract() == 0.0 && number.abs() <= MAX_EXACT;
    value.as_i64().or_else(|| value.as_f64().filter(|number| exact(*number)).map(|number| number as i64))
}

/// Parses a line of text of 1 to `longest` characters, and trims it.
pub fn line(longest: usize) -> impl FnOnce(Value) -> Result<String, String> {
    move |value| match value {
        Value::String(text) => check_line(&text, longest),
        _ => Err("must be a string".to_owned()),
    }
}

/// Parses a name: a line of at most 80 characters.
///
/// # Errors
/// The detail of the error, for people.
pub fn name(value: Value) -> Result<String, String> {
    line(80)(value)
}

/// Trims a line of text and checks that it has 1 to `longest` characters, none of them a control character.
///
/// # Errors
/// The detail of the error, for people.
pub fn check_line(text: &str, longest: usize) -> Result<String, String> {
    let text = text.trim();
    if text.chars().any(char::is_control) {
        Err("must not contain control characters".to_owned())
    } else if (1..=longest).contains(&text.chars().count()) {
        Ok(text.to_owned())
    } else {
        Err(format!("must be 1 to {longest} characters long"))
    }
}

/// A JSON value in which no object repeats a field. `serde_json` would silently keep the last one, so that another
/// parser could read a different request from the same text.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some((name, Strict(value))) = entries.next_entry::<String, Strict>()? {
            if fields.insert(name, value).is_some() {
                return Err(A::Error::custom("a field is repeated"));
            }
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn parse_error(body: &str) -> Code {
        Object::parse(body.as_bytes()).err().map_or(Code::Internal, |problem| problem.code())
    }

    #[test]
    fn malformed_json_is_rejected() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        for wrong in [
            "",
            "{",
            "{\"a\":1}x",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":1e999}",
            "\u{feff}{}",
            "{\"a\":1,\"a\":2}",
            &deep,
        ] {
            assert_eq!(parse_error(wrong), Code::MalformedJson, "{wrong:.40}");
        }
        assert_eq!(parse_error("{\"a\":{\"b\":1,\"b\":1}}"), Code::MalformedJson);
        assert!(Object::parse(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn json_that_is_not_an_object_is_rejected() {
        for wrong in ["[]", "1", "null", "\"a\""] {
            assert_eq!(parse_error(wrong), Code::ValidationFailed, "{wrong}");
        }
    }

    #[test]
    fn one_problem_lists_every_field_error() {
        let mut object = Object::parse(br#"{"name":3,"~x/y":1}"#).expect("valid JSON");
        let parsed = object.required("name", name).zip(object.required("role", name));
        let problem = object.finish(parsed).expect_err("three errors");
        let text = format!("{problem:?}");
        for pointer in ["\"/name\"", "\"/role\"", "\"/~0x~1y\""] {
            assert!(text.contains(pointer), "{pointer} is missing in {text}");
        }
    }

    #[test]
    fn whole_numbers_are_accepted_in_any_notation() {
        let read = |text: &str| integer(60..=100)(serde_json::from_str(text).expect("valid JSON")).ok();
        assert_eq!(["60", "60.0", "6e1", "6000e-2"].map(read), [Some(60); 4]);
        assert_eq!(["59", "60.5", "1e300", "\"60\"", "null", "true"].map(read), [None; 6]);
    }

    #[test]
    fn names_are_trimmed_and_checked() {
        assert_eq!(name("  Ärzte 💉 ".into()), Ok("Ärzte 💉".to_owned()));
        assert!(name("é".repeat(80).into()).is_ok());
        for wrong in ["", "   ", "a\u{0}b", "a\nb", &"é".repeat(81)] {
            assert!(name(wrong.into()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn only_json_content_types_are_accepted() {
        let check = |value: &'static str| {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))]);
            require_json(&headers).is_ok()
        };
        assert!(check("application/json") && check("Application/JSON; charset=UTF-8"));
        assert!(
            !check("text/plain") && !check("application/json; charset=latin1") && !check("application/jsonx")
        );
        assert!(require_json(&HeaderMap::new()).is_err());
    }
}
