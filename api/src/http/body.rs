//! Bodies of requests: read within a size and a time, then taken apart strictly.
//!
//! JSON is read into values first, refusing repeated fields and (by the parser's own limit of 128) deep nesting;
//! fields are then taken one by one, so that one answer names everything that is wrong.

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

/// How long a body may take to arrive as a whole. hyper has no such limit.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// The body of a request: on the wire, or in memory.
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

    /// The body as lines. `None` when it was taken before.
    pub(super) fn lines(&mut self, longest: usize, time: Duration) -> Option<Lines> {
        self.incoming.take().map(|incoming| Lines::new(incoming, self.limit, longest, time))
    }
}

async fn receive(mut incoming: Incoming, limit: usize) -> Result<Bytes, Problem> {
    // A body whose declared length is too large is rejected before its first byte.
    if incoming.size_hint().lower() > limit as u64 {
        return Err(Problem::body_too_large(limit));
    }
    let mut received = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| {
            Problem::new(Code::MalformedRequest, "The body is incomplete or malformed; send it again.")
                .cause(error)
        })?;
        // This API ignores trailers.
        let Ok(data) = frame.into_data() else { continue };
        if received.len() + data.len() > limit {
            return Err(Problem::body_too_large(limit));
        }
        received.extend_from_slice(&data);
    }
    Ok(received.freeze())
}

/// Makes sure that the body is declared as JSON.
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    require_type(headers, "application/json")
}

/// Makes sure that the body is declared as what it has to be: a browser sends `text/plain` across sites without asking
/// first.
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

/// What is wrong with everything that is no object.
pub const NO_OBJECT: &str = "must be an object";

/// A JSON object whose fields are taken one by one; what is wrong with them is collected.
#[derive(Debug)]
pub struct Object {
    fields: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Object {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Problem> {
        Self::read(body)
            .map_err(|error| {
                // The parser's words name positions and characters, not values.
                Problem::new(Code::MalformedJson, format!("The body is not valid JSON: {error}."))
            })?
            .ok_or_else(|| Problem::validation(vec![FieldError::body("", NO_OBJECT)]))
    }

    /// Reads an object that is a part of a body. `None`: it is JSON, but no object.
    ///
    /// # Errors
    /// When it is no JSON.
    pub fn read(text: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        let Strict(value) = serde_json::from_slice(text)?;
        match value {
            Value::Object(fields) => Ok(Some(Self { fields, errors: Vec::new() })),
            _ => Ok(None),
        }
    }

    /// A field that must be there.
    pub fn required<T>(&mut self, name: &str, parse: impl FnOnce(Value) -> Result<T, String>) -> Option<T> {
        if self.fields.contains_key(name) {
            self.optional(name, parse).flatten()
        } else {
            self.errors.push(FieldError::body(pointer(name), "is required").code("required"));
            None
        }
    }

    /// A field that may be there: `Some(None)` when it is not, `None` when it is wrong.
    pub fn optional<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<Option<T>> {
        match self.fields.remove(name).map(parse) {
            None => Some(None),
            Some(Ok(value)) => Some(Some(value)),
            Some(Err(wrong)) => {
                self.errors.push(FieldError::body(pointer(name), wrong));
                None
            }
        }
    }

    /// Ends the reading. Returns the fields, or all errors, including unknown fields.
    ///
    /// # Errors
    /// [`Code::ValidationFailed`].
    pub fn finish<T>(self, made: Option<T>) -> Result<T, Problem> {
        self.close(made).map_err(Problem::validation)
    }

    /// The same, with further errors of the caller.
    ///
    /// # Errors
    /// Everything that was wrong.
    pub fn close<T>(mut self, made: Option<T>) -> Result<T, Vec<FieldError>> {
        self.errors.extend(
            self.fields
                .keys()
                .map(|name| FieldError::body(pointer(name), "is not a known field").code("unknown")),
        );
        match made {
            Some(made) if self.errors.is_empty() => Ok(made),
            _ => Err(self.errors),
        }
    }
}

/// The JSON pointer to a field.
fn pointer(name: &str) -> String {
    // What a client invents may be long; the answer need not repeat all of it.
    let name: String = name.chars().take(64).collect();
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Takes a field as it is.
///
/// # Errors
/// Never.
pub fn any(value: Value) -> Result<Value, String> {
    Ok(value)
}

/// Takes a field as one of a type's values, which `expected` describes.
pub fn one_of<T: DeserializeOwned>(expected: &'static str) -> impl FnOnce(Value) -> Result<T, String> {
    move |value| serde_json::from_value(value).map_err(|_| format!("must be {expected}"))
}

/// Takes a field as a whole number within a range, however it is written: JSON has one kind of number, so `60`, `60.0`
/// and `6e1` are the same.
pub fn integer(range: std::ops::RangeInclusive<i64>) -> impl FnOnce(Value) -> Result<i64, String> {
    move |value| {
        whole(&value)
            .filter(|number| range.contains(number))
            .ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
    }
}

fn whole(value: &Value) -> Option<i64> {
    /// Up to here a floating-point number is exactly the whole number that was written.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let exact = |number: f64| number.fract() == 0.0 && number.abs() <= EXACT;
    value.as_i64().or_else(|| value.as_f64().filter(|number| exact(*number)).map(|number| number as i64))
}

/// Takes a field as a line of text of 1 to `longest` characters, trimmed.
pub fn line(longest: usize) -> impl FnOnce(Value) -> Result<String, String> {
    move |value| match value {
        Value::String(text) => check_line(&text, longest),
        _ => Err("must be a string".to_owned()),
    }
}

/// A name of something: a line of at most 80 characters.
///
/// # Errors
/// Says what is wrong with it.
pub fn name(value: Value) -> Result<String, String> {
    line(80)(value)
}

/// Trims a line of text and makes sure that it is 1 to `longest` characters, none of them a control character.
///
/// # Errors
/// Says what is wrong with it.
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

/// A JSON value in which no object names a field twice: `serde_json` would keep the last one silently, and two
/// readers of the same text could see two different requests.
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

    fn refused(body: &str) -> Code {
        Object::parse(body.as_bytes()).err().map_or(Code::Internal, |problem| problem.code())
    }

    #[test]
    fn invalid_json_is_rejected() {
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
            assert_eq!(refused(wrong), Code::MalformedJson, "{wrong:.40}");
        }
        assert_eq!(refused("{\"a\":{\"b\":1,\"b\":1}}"), Code::MalformedJson);
        assert!(Object::parse(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn a_body_must_be_an_object() {
        for wrong in ["[]", "1", "null", "\"a\""] {
            assert_eq!(refused(wrong), Code::ValidationFailed, "{wrong}");
        }
    }

    #[test]
    fn all_errors_are_reported_together() {
        let mut object = Object::parse(br#"{"name":3,"~x/y":1}"#).expect("valid JSON");
        let made = object.required("name", name).zip(object.required("role", name));
        let problem = object.finish(made).expect_err("three mistakes");
        let text = format!("{problem:?}");
        for pointer in ["\"/name\"", "\"/role\"", "\"/~0x~1y\""] {
            assert!(text.contains(pointer), "{pointer} is missing in {text}");
        }
    }

    #[test]
    fn integers_are_accepted_in_every_notation() {
        let read = |text: &str| integer(60..=100)(serde_json::from_str(text).expect("valid JSON")).ok();
        assert_eq!(["60", "60.0", "6e1", "6000e-2"].map(read), [Some(60); 4]);
        assert_eq!(["59", "60.5", "1e300", "\"60\"", "null", "true"].map(read), [None; 6]);
    }

    #[test]
    fn names_are_trimmed_lines() {
        assert_eq!(name("  Ärzte 💉 ".into()), Ok("Ärzte 💉".to_owned()));
        assert!(name("é".repeat(80).into()).is_ok());
        for wrong in ["", "   ", "a\u{0}b", "a\nb", &"é".repeat(81)] {
            assert!(name(wrong.into()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn only_json_is_json() {
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
