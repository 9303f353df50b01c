//! The loaded OpenAPI document: every answer and every event is either as documented, or a violation.

use std::path::Path;

use anyhow::{Context as _, bail};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use crate::event::Event;
use crate::reply::Reply;
use crate::schemas::Schemas;
use crate::templates::Templates;

/// The problem codes of an operation.
const PROBLEM_CODES: &str = "x-problem-codes";
/// The problem codes where there is no operation: an unknown path, or a path without the method.
const UNROUTED_PROBLEM_CODES: &str = "x-unrouted-problem-codes";
/// The status of each problem code, and the headers that come with it.
const PROBLEMS: &str = "/components/schemas/ProblemCode/x-problems";
/// The one response of all problems.
const PROBLEM_RESPONSE: &str = "/components/responses/ProblemResponse";
/// The schema of each event's data, next to the schema of a stream's media type.
const EVENTS: &str = "x-sse-events";

/// The loaded contract.
#[derive(Debug)]
pub struct Contract {
    document: Value,
    templates: Templates,
    schemas: Schemas,
}

/// A difference between an answer and the contract.
#[derive(Debug, thiserror::Error)]
#[error("violates docs/api/openapi.yaml: {0}")]
pub struct Violation(String);

/// What the document says about a method and a path.
enum Route {
    /// The pointer to the operation.
    Operation(String),
    /// There is no operation, because the document lacks this.
    Missing(&'static str),
}

/// A response as the document describes it, with the pointer to it.
struct Documented<'a> {
    pointer: String,
    response: &'a Value,
}

/// A media type's name, and its description.
type Media<'a> = (String, &'a Value);

impl Contract {
    /// Loads the contract of the repository that this was built in.
    ///
    /// # Errors
    /// When it cannot be read, or is not an OpenAPI 3.1 document.
    pub fn load() -> anyhow::Result<Self> {
        Self::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api/openapi.yaml"))
    }

    /// Loads a contract from a file.
    ///
    /// # Errors
    /// When it cannot be read or used.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not a usable contract", file.display()))
    }

    /// Parses a contract in YAML or JSON.
    ///
    /// # Errors
    /// When it is not an OpenAPI 3.1 document.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let document: Value = serde_saphyr::from_str(text)?;
        if !document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")) {
            bail!("`openapi` has to be 3.1.x");
        }
        let paths = document["paths"].as_object().context("`paths` is missing")?;
        let templates = Templates::new(paths.keys().map(String::as_str));
        let schemas = Schemas::new(&document);
        Ok(Self { templates, schemas, document })
    }

    /// The whole document.
    #[must_use]
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// Every operation: method and path template.
    #[must_use]
    pub fn operations(&self) -> Vec<(Method, String)> {
        let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
        let mut operations = Vec::new();
        for (template, item) in self.document["paths"].as_object().into_iter().flatten() {
            for method in methods {
                if item.get(method.to_ascii_lowercase()).is_some()
                    && let Ok(method) = Method::from_bytes(method.as_bytes())
                {
                    operations.push((method, template.clone()));
                }
            }
        }
        operations
    }

    /// Checks an answer against the contract. A page of the web app is no part of it.
    ///
    /// # Errors
    /// When the two differ.
    pub fn check(&self, reply: &Reply) -> Result<(), Violation> {
        let route = self.route(&reply.method, &reply.path);
        if matches!(route, Route::Missing(_)) && is_page(reply) {
            return Ok(());
        }
        let (documented, media) = self.head(&reply.method, &reply.path, reply.status, &reply.headers)?;
        let Some((name, media)) = media else {
            if reply.body.is_empty() || reply.method == Method::HEAD {
                return Ok(());
            }
            return Err(Violation(format!("got a body, but none is documented: {}", reply.describe())));
        };
        if media.get("schema").is_none() || !is_json(&name) || reply.method == Method::HEAD {
            return Ok(());
        }
        let body: Value = serde_json::from_slice(&reply.body)
            .map_err(|error| Violation(format!("the body is not JSON ({error}): {}", reply.describe())))?;
        let pointer = format!("{}/content/{}/schema", documented.pointer, escaped(&name));
        self.schemas
            .check(&pointer, &body)
            .map_err(|reason| Violation(format!("{}\n{reason}", reply.describe())))?;
        if is_error(reply.status) { self.check_problem(&route, reply, &body) } else { Ok(()) }
    }

    /// Checks that the operation documents the code of a problem, and the code its status and its headers.
    fn check_problem(&self, route: &Route, reply: &Reply, body: &Value) -> Result<(), Violation> {
        let code = body["code"].as_str().unwrap_or_default();
        if !self.codes(route).any(|known| known == code) {
            return Err(Violation(format!("the code is not documented: {}", reply.describe())));
        }
        let problem = self.problem(code);
        if problem["status"] != reply.status.as_u16() {
            let status = &problem["status"];
            return Err(Violation(format!("the code has the status {status}: {}", reply.describe())));
        }
        for header in problem["headers"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !reply.headers.contains_key(header) {
                return Err(Violation(format!("the header `{header}` is missing: {}", reply.describe())));
            }
        }
        Ok(())
    }

    /// Checks status and headers of an answer whose body is still to come.
    ///
    /// # Errors
    /// When the two differ.
    pub fn check_head(
        &self,
        method: &Method,
        path: &str,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<(), Violation> {
        self.head(method, path, status, headers).map(|_| ())
    }

    /// Checks an event of a stream against the contract.
    ///
    /// # Errors
    /// When the two differ.
    pub fn check_event(&self, method: &Method, path: &str, event: &Event) -> Result<(), Violation> {
        let request = format!("{method} {path}");
        let documented = self.response(method, path, StatusCode::OK)?;
        let media = &documented.response["content"]["text/event-stream"];
        let Some(events) = media.get(EVENTS) else {
            return Err(Violation(format!("{request}: the stream's `{EVENTS}` are not documented")));
        };
        if events.get(&event.event).is_none() {
            let known: Vec<_> = events.as_object().into_iter().flat_map(|events| events.keys()).collect();
            return Err(Violation(format!(
                "{request}: the event `{}` is not documented (documented: {known:?}): {}",
                event.event, event.data
            )));
        }
        let data: Value = serde_json::from_str(&event.data).map_err(|error| {
            Violation(format!(
                "{request}: the data of `{}` is not JSON ({error}): {}",
                event.event, event.data
            ))
        })?;
        let pointer =
            format!("{}/content/text~1event-stream/{EVENTS}/{}", documented.pointer, escaped(&event.event));
        self.schemas.check(&pointer, &data).map_err(|reason| {
            Violation(format!("{request}: the event `{}` has the data {}\n{reason}", event.event, event.data))
        })
    }

    /// [`Contract::check`], for clients of tests.
    ///
    /// # Panics
    /// When the two differ.
    #[track_caller]
    pub fn assert_reply(&self, reply: &Reply) {
        self.check(reply).unwrap_or_else(|violation| panic!("{violation}"));
    }

    /// [`Contract::check_head`], for clients.
    ///
    /// # Panics
    /// When the two differ.
    #[track_caller]
    pub fn assert_head(&self, method: &Method, path: &str, status: StatusCode, headers: &HeaderMap) {
        self.check_head(method, path, status, headers).unwrap_or_else(|violation| panic!("{violation}"));
    }

    /// [`Contract::check_event`], for clients.
    ///
    /// # Panics
    /// When the two differ.
    #[track_caller]
    pub fn assert_event(&self, method: &Method, path: &str, event: &Event) {
        self.check_event(method, path, event).unwrap_or_else(|violation| panic!("{violation}"));
    }

    /// Checks status, required headers and content type; returns the media type of the body.
    fn head(
        &self,
        method: &Method,
        path: &str,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<(Documented<'_>, Option<Media<'_>>), Violation> {
        let request = format!("{method} {path} → {}", status.as_u16());
        let documented = self.response(method, path, status)?;
        for (name, header) in documented.response["headers"].as_object().into_iter().flatten() {
            let required = self.resolved(header).is_some_and(|(_, header)| header["required"] == true);
            if required && !headers.contains_key(name.as_str()) {
                return Err(Violation(format!("{request}: the required header `{name}` is missing")));
            }
        }
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let Some(content) = documented.response["content"].as_object() else {
            return match content_type {
                None => Ok((documented, None)),
                Some(content_type) => Err(Violation(format!(
                    "{request}: content of type `{content_type}`, but none is documented"
                ))),
            };
        };
        let content_type = content_type
            .ok_or_else(|| Violation(format!("{request}: the header `content-type` is missing")))?;
        let essence = |kind: &str| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let media = content.iter().find(|(name, _)| essence(name) == essence(content_type));
        let known: Vec<_> = content.keys().collect();
        let (name, media) = media.ok_or_else(|| {
            Violation(format!("{request}: content of type `{content_type}`, documented: {known:?}"))
        })?;
        Ok((documented, Some((name.clone(), media))))
    }

    /// The documented response of a request. All errors share one.
    fn response(&self, method: &Method, path: &str, status: StatusCode) -> Result<Documented<'_>, Violation> {
        let code = status.as_str();
        let route = self.route(method, path);
        if is_error(status) {
            if !self.codes(&route).any(|known| self.problem(known)["status"] == status.as_u16()) {
                let what = match route {
                    Route::Operation(_) => "no problem code of the operation has the status",
                    Route::Missing(what) => what,
                };
                return Err(Violation(format!("{method} {path} → {code}: {what}")));
            }
            return self.documented(PROBLEM_RESPONSE).ok_or_else(|| dangling(PROBLEM_RESPONSE));
        }
        let operation = match route {
            Route::Operation(pointer) => pointer,
            Route::Missing(what) => return Err(Violation(format!("{method} {path} → {code}: {what}"))),
        };
        let pointer = format!("{operation}/responses/{code}");
        if self.document.pointer(&pointer).is_none() {
            return Err(Violation(format!("{method} {path} → {code}: the status is not documented")));
        }
        self.documented(&pointer).ok_or_else(|| dangling(&pointer))
    }

    /// The operation of a request.
    fn route(&self, method: &Method, path: &str) -> Route {
        let path = path.split('?').next().unwrap_or_default();
        let Some(template) = self.templates.find(path) else {
            return Route::Missing("its path is not documented");
        };
        let item = &self.document["paths"][template];
        let method = method.as_str().to_ascii_lowercase();
        // HEAD is answered like GET.
        let method = if method == "head" && item.get("head").is_none() { "get".to_owned() } else { method };
        if item.get(&method).is_none() {
            return Route::Missing("its method is not documented");
        }
        Route::Operation(format!("/paths/{}/{method}", escaped(template)))
    }

    /// The problem codes of an operation, or of a request without one.
    fn codes(&self, route: &Route) -> impl Iterator<Item = &str> {
        let codes = match route {
            Route::Operation(pointer) => self.document.pointer(&format!("{pointer}/{PROBLEM_CODES}")),
            Route::Missing(_) => self.document.get(UNROUTED_PROBLEM_CODES),
        };
        codes.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    /// Status and headers of a problem code; null for an unknown one.
    fn problem(&self, code: &str) -> &Value {
        self.document.pointer(PROBLEMS).map_or(&Value::Null, |problems| &problems[code])
    }

    fn documented(&self, pointer: &str) -> Option<Documented<'_>> {
        let (target, response) = self.resolved(self.document.pointer(pointer)?)?;
        Some(Documented { pointer: target.unwrap_or_else(|| pointer.to_owned()), response })
    }

    /// The target of a `$ref` with its pointer, or the value itself.
    fn resolved<'a>(&'a self, value: &'a Value) -> Option<(Option<String>, &'a Value)> {
        match value.get("$ref").and_then(Value::as_str) {
            None => Some((None, value)),
            Some(reference) => {
                let pointer = reference.strip_prefix('#')?;
                let target = self.document.pointer(pointer)?;
                let (further, target) = self.resolved(target)?;
                Some((Some(further.unwrap_or_else(|| pointer.to_owned())), target))
            }
        }
    }
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// Whether this is a file of the web app, which the contract leaves out.
fn is_page(reply: &Reply) -> bool {
    matches!(reply.method, Method::GET | Method::HEAD)
        && !reply.path.starts_with("/v1/")
        && (reply.status == StatusCode::OK || reply.status == StatusCode::NOT_MODIFIED)
}

fn dangling(pointer: &str) -> Violation {
    Violation(format!("the document is broken: a `$ref` at {pointer} has no target"))
}

fn is_json(media: &str) -> bool {
    let media = media.split(';').next().unwrap_or_default().trim();
    media == "application/json" || media.ends_with("+json")
}

/// A name as one segment of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests;
