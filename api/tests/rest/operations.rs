//! The contract's operations as requests. Tests that are generated from the OpenAPI file cover future routes as well.

use std::collections::BTreeSet;

use atrium_contract::{Contract, Reply};
use atrium_harness::client::{Client, Request, StreamError};
use http::Method;
use serde_json::Value;
use uuid::Uuid;

/// An operation, with everything that a valid request of it needs.
pub(crate) struct Operation {
    pub(crate) id: String,
    pub(crate) method: Method,
    pub(crate) template: String,
    /// The parameter names in the path, in order.
    pub(crate) path: Vec<String>,
    /// Whether it needs no authentication.
    pub(crate) public: bool,
    /// Whether it accepts an access token.
    pub(crate) by_token: bool,
    /// The name of the least role that may use it.
    pub(crate) least_role: Option<String>,
    /// The least role where the operation affects another member.
    pub(crate) least_role_for_others: Option<String>,
    /// A valid JSON body, where it takes one.
    pub(crate) body: Option<Value>,
    /// A valid body of JSON lines, where it takes one.
    lines: Option<String>,
    /// The fields of the JSON body that are ids, named like path parameters.
    pub(crate) body_ids: Vec<String>,
    /// Whether its response is an event stream.
    pub(crate) stream: bool,
    /// The statuses that it documents.
    pub(crate) statuses: BTreeSet<u16>,
    /// Whether it can be repeated with an `Idempotency-Key`.
    pub(crate) repeatable: bool,
    /// Why it cannot be repeated, for an operation that creates something.
    pub(crate) not_repeatable: Option<String>,
    query: String,
    if_match: bool,
    examples: Vec<(String, String)>,
}

impl Operation {
    /// All operations of the contract.
    pub(crate) fn all() -> Vec<Self> {
        let contract = Contract::load().unwrap();
        let document = contract.document();
        let operations = contract.operations();
        operations.into_iter().map(|(method, template)| Self::read(document, method, template)).collect()
    }

    fn read(document: &Value, method: Method, template: String) -> Self {
        let item = &document["paths"][&template];
        let operation = &item[method.as_str().to_ascii_lowercase()];
        let parameters = [&item["parameters"], &operation["parameters"]];
        let parameters: Vec<&Value> = parameters
            .into_iter()
            .filter_map(Value::as_array)
            .flatten()
            .map(|parameter| resolved(document, parameter))
            .collect();
        let named = |location: &str, name: &str| {
            parameters.iter().any(|parameter| parameter["in"] == location && parameter["name"] == name)
        };
        let examples = parameters.iter().filter_map(|parameter| {
            Some((parameter["name"].as_str()?.to_owned(), parameter["example"].as_str()?.to_owned()))
        });
        let query =
            parameters.iter().filter(|parameter| parameter["in"] == "query" && parameter["required"] == true);
        let query = query.map(|parameter| {
            let example = parameter["example"].as_str().expect("a required parameter has an example");
            format!("{}={}", parameter["name"].as_str().unwrap(), example.replace(' ', "%20"))
        });
        let content = &operation["requestBody"]["content"];
        let json = &content["application/json"];
        let responses = operation["responses"].as_object().expect("an operation documents its answers");
        let text = |name: &str| operation[name].as_str().map(str::to_owned);
        Self {
            id: text("operationId").expect("an operation has an id"),
            path: template
                .split('/')
                .filter_map(|part| Some(part.strip_prefix('{')?.strip_suffix('}')?.to_owned()))
                .collect(),
            by_token: {
                let schemes = operation["security"].as_array().or_else(|| document["security"].as_array());
                schemes.is_some_and(|schemes| schemes.iter().any(|scheme| scheme.get("bearerAuth").is_some()))
            },
            public: operation["security"].as_array().is_some_and(Vec::is_empty),
            least_role: text("x-minimum-role"),
            least_role_for_others: text("x-minimum-role-for-others"),
            body: json.get("example").cloned(),
            lines: content["application/x-ndjson"]["example"].as_str().map(str::to_owned),
            body_ids: json["example"]
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(_, value)| value.as_str().is_some_and(|text| text.parse::<Uuid>().is_ok()))
                .map(|(name, _)| name.clone())
                .collect(),
            stream: responses.get("200").is_some_and(|ok| ok["content"].get("text/event-stream").is_some()),
            statuses: responses
                .keys()
                .filter(|status| *status != "default")
                .map(|status| status.parse().expect("a status"))
                .chain(operation["x-problem-codes"].as_array().into_iter().flatten().map(|code| {
                    let problems = &document["components"]["schemas"]["ProblemCode"]["x-problems"];
                    let status = problems[code.as_str().expect("a code")]["status"].as_u64();
                    status.and_then(|status| u16::try_from(status).ok()).expect("a status")
                }))
                .collect(),
            repeatable: named("header", "Idempotency-Key"),
            not_repeatable: text("x-not-repeatable"),
            query: query.collect::<Vec<_>>().join("&"),
            if_match: named("header", "If-Match"),
            examples: examples.collect(),
            method,
            template,
        }
    }

    /// Whether it creates something, so that repeating it must be safe.
    pub(crate) fn creates(&self) -> bool {
        self.method == Method::POST && (self.statuses.contains(&201) || self.statuses.contains(&202))
    }

    /// Whether it may change something.
    pub(crate) fn writes(&self) -> bool {
        self.method != Method::GET
    }

    /// The contract's own example of a parameter.
    pub(crate) fn example(&self, parameter: &str) -> &str {
        let found = self.examples.iter().find(|(name, _)| name == parameter);
        &found.unwrap_or_else(|| panic!("`{parameter}` of {} has no example", self.id)).1
    }

    /// The media type and the text of a valid body, where it takes one.
    pub(crate) fn valid_body(&self) -> Option<(&'static str, String)> {
        let lines = || self.lines.clone().map(|lines| ("application/x-ndjson", lines));
        self.body.as_ref().map(|body| ("application/json", body.to_string())).or_else(lines)
    }

    /// Whether it transfers a whole organization.
    pub(crate) fn is_export_or_import(&self) -> bool {
        self.lines.is_some() || self.template.ends_with("/export")
    }

    /// A request that is valid except, perhaps, for its ids and its caller. `value` returns the path parameters and the
    /// ids in the body by name.
    pub(crate) fn request<'a>(&self, client: &Client, value: impl Fn(&str) -> &'a str) -> Request {
        let body = self.body.clone().map(|mut body| {
            for name in &self.body_ids {
                body[name] = value(name).into();
            }
            body
        });
        let request = self.without_body(client, value);
        match body {
            Some(body) => request.json(body),
            None => match &self.lines {
                Some(lines) => request.body("application/x-ndjson", lines.clone()),
                None => request,
            },
        }
    }

    /// The request without its body.
    pub(crate) fn without_body<'a>(&self, client: &Client, value: impl Fn(&str) -> &'a str) -> Request {
        let mut path = self.template.clone();
        for name in &self.path {
            path = path.replace(&format!("{{{name}}}"), value(name));
        }
        if !self.query.is_empty() {
            path = format!("{path}?{}", self.query);
        }
        let request = client.request(self.method.clone(), path);
        if self.if_match { request.if_match("*") } else { request }
    }

    /// Sends a request of this operation. Returns `None` as soon as an event stream has started.
    pub(crate) async fn send(&self, request: Request) -> Option<Reply> {
        if !self.stream {
            return Some(request.send().await.unwrap());
        }
        match request.events().await {
            Ok(_) => None,
            Err(StreamError::Refused(reply)) => Some(*reply),
            Err(error) => panic!("{}: {error}", self.id),
        }
    }
}

/// What a `$ref` points to, or the value itself.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => {
            let target = document.pointer(reference.trim_start_matches('#'));
            resolved(document, target.unwrap_or_else(|| panic!("{reference} does not resolve")))
        }
        None => value,
    }
}
