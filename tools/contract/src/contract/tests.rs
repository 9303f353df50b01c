use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::Contract;
use crate::event::Event;
use crate::reply::Reply;

const DOCUMENT: &str = r##"
openapi: 3.1.0
info: { title: T, version: "1" }
x-unrouted-problem-codes: [route_not_found]
paths:
  /things:
    post:
      responses:
        "201":
          description: Made.
          headers:
            x-request-id: { $ref: "#/components/headers/RequestId" }
            x-optional: { schema: { type: string } }
          content:
            application/json:
              schema: { $ref: "#/components/schemas/Thing" }
        default: { $ref: "#/components/responses/ProblemResponse" }
      x-problem-codes: [name_invalid, too_many_things]
  /things/{thing}:
    delete:
      responses:
        "204": { description: Gone. }
  /things/{thing}/events:
    get:
      responses:
        "200":
          description: Events.
          content:
            text/event-stream:
              schema: { type: string }
              x-sse-events:
                thing.changed: { $ref: "#/components/schemas/Thing" }
components:
  headers:
    RequestId: { required: true, schema: { type: string } }
  responses:
    ProblemResponse:
      description: A problem.
      content:
        application/problem+json:
          schema:
            type: object
            required: [code]
            properties: { code: { $ref: "#/components/schemas/ProblemCode" } }
  schemas:
    ProblemCode:
      type: string
      enum: [name_invalid, not_yours, route_not_found, too_many_things]
      x-problems:
        name_invalid: { status: 422 }
        not_yours: { status: 403 }
        route_not_found: { status: 404 }
        too_many_things: { status: 429, headers: [Retry-After] }
    Thing:
      type: object
      required: [id, name]
      properties:
        id: { type: string, format: uuid }
        name: { type: [string, "null"] }
"##;

const THING: &str = r#"{"id":"01a208eb-c980-726b-b2a7-4de452e6b438","name":"x"}"#;

fn contract() -> Contract {
    Contract::parse(DOCUMENT).expect("the document is a contract")
}

fn reply(method: Method, path: &str, status: u16, content_type: Option<&'static str>, body: &str) -> Reply {
    let mut headers = HeaderMap::new();
    headers.insert("x-request-id", HeaderValue::from_static("r"));
    if let Some(content_type) = content_type {
        headers.insert("content-type", HeaderValue::from_static(content_type));
    }
    Reply {
        method,
        path: path.to_owned(),
        status: StatusCode::from_u16(status).expect("a status"),
        headers,
        body: Bytes::copy_from_slice(body.as_bytes()),
        took: Duration::ZERO,
    }
}

fn made(body: &str) -> Reply {
    reply(Method::POST, "/things?x=1", 201, Some("application/json; charset=utf-8"), body)
}

/// The violation; empty when the answer is as documented.
fn verdict(reply: &Reply) -> String {
    contract().check(reply).map_or_else(|violation| violation.to_string(), |()| String::new())
}

#[test]
fn documented_answers_pass() {
    assert_eq!(verdict(&made(THING)), "");
    assert_eq!(verdict(&reply(Method::DELETE, "/things/1", 204, None, "")), "");
    let problem =
        reply(Method::POST, "/things", 422, Some("application/problem+json"), r#"{"code":"name_invalid"}"#);
    assert_eq!(verdict(&problem), "");
}

#[test]
fn a_problem_has_a_documented_code_with_its_status_and_headers() {
    let problem = |status: u16, code: &str| {
        reply(
            Method::POST,
            "/things",
            status,
            Some("application/problem+json"),
            &format!(r#"{{"code":"{code}"}}"#),
        )
    };
    assert!(verdict(&problem(403, "not_yours")).contains("no problem code of the operation has the status"));
    assert!(verdict(&problem(422, "not_yours")).contains("the code is not documented"));
    assert!(verdict(&problem(422, "too_many_things")).contains("the code has the status 429"));
    let mut limited = problem(429, "too_many_things");
    assert!(verdict(&limited).contains("`Retry-After` is missing"));
    limited.headers.insert("retry-after", HeaderValue::from_static("1"));
    assert_eq!(verdict(&limited), "");
}

#[test]
fn a_page_is_no_part_of_the_contract() {
    assert_eq!(verdict(&reply(Method::GET, "/app.js", 200, Some("text/javascript"), "x")), "");
    let beside = reply(Method::GET, "/v1/others", 200, Some("application/json"), "{}");
    assert!(verdict(&beside).contains("its path is not documented"));
}

#[test]
fn an_undocumented_status_is_a_violation() {
    let answer = reply(Method::POST, "/things", 200, Some("application/json"), THING);
    assert!(verdict(&answer).contains("the status is not documented"));
}

#[test]
fn an_undocumented_path_or_method_is_a_violation() {
    let answer = reply(Method::POST, "/others", 201, Some("application/json"), THING);
    assert!(verdict(&answer).contains("its path is not documented"));
    let answer = reply(Method::PUT, "/things", 201, Some("application/json"), THING);
    assert!(verdict(&answer).contains("its method is not documented"));
}

#[test]
fn unrouted_answers_have_their_own_documentation() {
    let problem = Some("application/problem+json");
    assert_eq!(verdict(&reply(Method::GET, "/others", 404, problem, r#"{"code":"route_not_found"}"#)), "");
    assert!(verdict(&reply(Method::GET, "/others", 404, problem, "{}")).contains("code"));
    assert!(
        verdict(&reply(Method::PUT, "/things", 405, problem, "{}")).contains("its method is not documented")
    );
}

#[test]
fn a_missing_required_header_is_a_violation() {
    let mut answer = made(THING);
    answer.headers.remove("x-request-id");
    assert!(verdict(&answer).contains("`x-request-id` is missing"));
}

#[test]
fn another_content_type_is_a_violation() {
    let answer = reply(Method::POST, "/things", 201, Some("text/plain"), THING);
    assert!(verdict(&answer).contains("`text/plain`"));
    let answer = reply(Method::POST, "/things", 201, None, THING);
    assert!(verdict(&answer).contains("`content-type` is missing"));
}

#[test]
fn a_body_where_none_is_documented_is_a_violation() {
    assert!(verdict(&reply(Method::DELETE, "/things/1", 204, None, "x")).contains("none is documented"));
    let typed = reply(Method::DELETE, "/things/1", 204, Some("application/json"), "");
    assert!(verdict(&typed).contains("none is documented"));
}

#[test]
fn a_body_that_breaks_its_schema_is_a_violation() {
    assert!(verdict(&made("{")).contains("not JSON"));
    assert!(verdict(&made(r#"{"id":"01a208eb-c980-726b-b2a7-4de452e6b438"}"#)).contains("name"));
    assert!(verdict(&made(r#"{"id":"1","name":null}"#)).contains("/id"), "formats are checked");
    let more = r#"{"id":"01a208eb-c980-726b-b2a7-4de452e6b438","name":"x","more":1}"#;
    assert!(verdict(&made(more)).contains("more"));
}

#[test]
fn events_are_checked_against_their_schemas() {
    let contract = contract();
    let verdict = |name: &str, data: &str| {
        let event =
            Event { id: String::new(), event: name.to_owned(), data: data.to_owned(), at: Instant::now() };
        contract
            .check_event(&Method::GET, "/things/1/events", &event)
            .map_or_else(|violation| violation.to_string(), |()| String::new())
    };
    assert_eq!(verdict("thing.changed", THING), "");
    assert!(verdict("thing.lost", THING).contains("is not documented"));
    assert!(verdict("thing.changed", r#"{"id":1,"name":"x"}"#).contains("/id"));
    assert!(verdict("thing.changed", "x").contains("not JSON"));
}

#[test]
fn the_repository_has_a_contract_whose_every_schema_compiles() {
    let contract = Contract::load().expect("docs/api/openapi.yaml is a contract");
    let operations = contract.operations();
    assert!(operations.len() > 20, "only {} operations", operations.len());
    for (method, template) in operations {
        let pointer =
            format!("/paths/{}/{}", super::escaped(&template), method.as_str().to_ascii_lowercase());
        let operation = contract.document.pointer(&pointer).expect("operations() lists what exists");
        for (status, response) in operation["responses"].as_object().expect("responses") {
            let (_, response) = contract.resolved(response).expect("references resolve");
            let at =
                contract.documented(&format!("{pointer}/responses/{status}")).expect("documented").pointer;
            for (media, content) in response["content"].as_object().into_iter().flatten() {
                let at = format!("{at}/content/{}", super::escaped(media));
                let events = content["x-sse-events"].as_object().into_iter().flatten();
                let schemas = content.get("schema").map(|_| format!("{at}/schema")).into_iter();
                let all = schemas
                    .chain(events.map(|(name, _)| format!("{at}/x-sse-events/{}", super::escaped(name))));
                for schema in all {
                    let answer = contract.schemas.check(&schema, &serde_json::json!({}));
                    let usable = answer.map_or_else(|reason| !reason.contains("cannot be used"), |()| true);
                    assert!(usable, "{method} {template}: the schema at {schema} does not compile");
                }
            }
        }
    }
}
