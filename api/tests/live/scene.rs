//! The starting point of the tests of the live path: an organization with a project and members.

use std::time::Duration;

use atrium_contract::{Event, Reply};
use atrium_harness::{
    Atrium,
    client::{EventStream, Request},
    guest::{Guest, Window},
};

/// Longer than anything here takes on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// An organization's owner and one project.
pub(crate) struct Scene {
    pub(crate) owner: Guest,
    pub(crate) org: String,
    pub(crate) project: String,
}

impl Scene {
    pub(crate) async fn begin(atrium: &Atrium) -> Self {
        let owner = atrium.guest().await;
        let org = owner.organization("Northwind").await.expect("an organization");
        let project = owner.project(&org, "Harbor").await.expect("a project");
        Self { owner, org, project }
    }

    pub(crate) async fn member(&self) -> Guest {
        self.join("member").await
    }

    pub(crate) async fn join(&self, role: &str) -> Guest {
        self.owner.invite_guest(&self.org, role).await.expect("another member")
    }

    pub(crate) async fn window(&self, guest: &Guest) -> Window {
        guest.open_chat(&self.org, &self.project).await.expect("a chat session")
    }

    pub(crate) fn chat(&self) -> String {
        format!("/v1/orgs/{}/projects/{}/chat", self.org, self.project)
    }

    /// The sum of the project's counters, as this guest sees it.
    pub(crate) async fn total(&self, guest: &Guest) -> i64 {
        let counters = answered(guest.client.get(format!("{}/counters", self.chat())), 200).await;
        counters.json()["total"].as_i64().expect("a number")
    }
}

/// Sends a request whose answer has to have this status.
pub(crate) async fn answered(request: Request, status: u16) -> Reply {
    request.send().await.expect("an answer").must(status)
}

/// Sends a request that must be rejected with this status and code.
pub(crate) async fn refused(request: Request, status: u16, code: &str) -> Reply {
    request.send().await.expect("an answer").must_be(status, code)
}

/// Opens a stream that must begin with a reset because its position is unknown.
pub(crate) async fn reset_stream(request: Request) -> EventStream {
    let mut stream = request.events().await.expect("a stream");
    let reset = stream.must_next(SOON).await;
    assert_eq!(
        (reset.event.as_str(), reset.json()),
        ("reset", serde_json::json!({ "reason": "history_lost" }))
    );
    stream
}

/// Opens the stream of a guest's window, after `last_event_id`.
pub(crate) async fn open(guest: &Guest, window: &Window, last_event_id: Option<&str>) -> EventStream {
    guest.client.events(&window.events(), last_event_id).await.expect("a stream")
}

/// The next `count` actions: the ids they were accepted under, and the ids of their events.
pub(crate) async fn actions(stream: &mut EventStream, count: usize) -> Vec<(String, String)> {
    let mut seen = Vec::with_capacity(count);
    while seen.len() < count {
        let event = stream.must_next(SOON).await;
        assert_eq!(event.event, "chat.action", "{}", event.data);
        seen.push(accepted(&event));
    }
    seen
}

/// The id an action was accepted under, and its event's.
pub(crate) fn accepted(event: &Event) -> (String, String) {
    (event.json()["id"].as_str().expect("a string").to_owned(), event.id.clone())
}

/// A counter of an API process, summed over the labels that are not named.
pub(crate) async fn metric(atrium: &Atrium, api: usize, name: &str, label: &str) -> f64 {
    let admin = atrium_harness::client::Client::new(atrium.api(api).admin_url());
    let text = admin.get("/metrics").send().await.expect("metrics").must(200).text();
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}
