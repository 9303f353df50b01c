//! The contract's operations as requests: what a test generates from the OpenAPI file covers tomorrow's routes, too.

use std::collections::BTreeSet;

use atrium_contract::{Contract, Reply};
use atrium_harness::client::{Client, Request, StreamError};
use http::Method;
use serde_json::Value;
use uuid::Uuid;

/// An operation, and what a valid request of it needs.
pub(crate) struct Operation {
    pub(crate) id: String,
    pub(crate) method: Method,
    pub(crate) template: String,
    /// The names in the path, in their order.
    pub(crate) path: Vec<String>,
    /// Whether it needs no sign-in.
    pub(crate) public: bool,
    /// Whether an access token is all it takes to be known.
    pub(crate) by_token: bool,
    /// The least role that may use it, by its name.
    pub(crate) least_role: Option<String>,
    /// The same if another member is its object.
    pub(crate) least_role_for_others: Option<String>,
    /// A valid body, where it takes one.
    pub(crate) body: Option<Value>,
    /// The same of one that is lines of JSON.
    lines: Option<String>,
    /// The fields of that body that are ids, named like those in a path.
    pub(crate) body_ids: Vec<String>,
    /// Whether it answers with an event stream.
    pub(crate) stream: bool,
    /// Statuses that it documents.
    pub(crate) statuses: BTreeSet<u16>,
    /// Whether it can be sent again under an `Idempotency-Key`.
    pub(crate) repeatable: bool,
    /// Why it cannot, where it creates something all the same.
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
        let named = |place: &str, name: &str| {
            parameters.iter().any(|parameter| parameter["in"] == place && parameter["name"] == name)
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
                let ways = operation["security"].as_array().or_else(|| document["security"].as_array());
                ways.is_some_and(|ways| ways.iter().any(|way| way.get("bearerAuth").is_some()))
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

    /// Whether it makes something: what must be safe to send again.
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

    /// Whether it moves a whole organization.
    pub(crate) fn is_export_or_import(&self) -> bool {
        self.lines.is_some() || self.template.ends_with("/export")
    }

    /// A request that is valid in all but, perhaps, its ids and its caller. `value` gives what is in the path, and the
    /// ids in the body, by name.
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

    /// The same without its body.
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

    /// Sends a request of this operation. Of an event stream only the beginning is waited for: `None` is a stream.
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
            resolved(document, target.unwrap_or_else(|| panic!("{reference} leads nowhere")))
        }
        None => value,
    }
}
