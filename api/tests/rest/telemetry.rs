//! Metrics and logs of the API: they name routes, but no users, organizations or secrets.

use atrium_harness::{Atrium, client::Client};
use serde_json::{Value, json};

use crate::CheckedSend as _;

#[tokio::test]
async fn metrics_and_logs_name_routes_and_contain_no_secrets() {
    let atrium = Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Telemetry").await.unwrap();
    let code = owner.invite(&org, "member").await.unwrap();
    owner.client.get(format!("/v1/orgs/{org}")).header("x-request-id", "find-me").answers(200).await;
    owner.client.get("/nothing/at/all").refused(404, "route_not_found").await;
    owner.client.post("/v1/orgs").json(json!({ "name": 7 })).refused(422, "validation_failed").await;

    let admin = Client::new(atrium.api(0).admin_url());
    let metrics = admin.get("/metrics").answers(200).await.text();
    for line in [
        r#"atrium_http_requests_total{method="GET",route="/v1/orgs/{org}",status="200"} 1"#,
        r#"atrium_http_requests_total{method="GET",route="unmatched",status="404"} 1"#,
        r#"atrium_http_request_duration_seconds_bucket{method="GET",route="/v1/orgs/{org}",le="#,
        "atrium_http_connections ",
    ] {
        assert!(metrics.contains(line), "{line} is missing in:\n{metrics}");
    }

    let logs = atrium.api(0).logs();
    let lines: Vec<Value> = logs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = lines.iter().find(|line| line["client_request_id"] == "find-me").unwrap();
    assert_eq!(
        (&line["message"], &line["method"], &line["route"], &line["status"]),
        (&json!("request"), &json!("GET"), &json!("/v1/orgs/{org}"), &json!(200))
    );
    assert!(line["milliseconds"].as_f64().unwrap() > 0.0);
    assert!(lines.iter().any(|line| line["code"] == "validation_failed" && line["status"] == 422));
    for secret in [owner.client.token().unwrap(), &code, org.as_str()] {
        assert!(!logs.contains(secret) && !metrics.contains(secret), "a log or metric contains {secret}");
    }
}
