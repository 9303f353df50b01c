//! Entries of a chat shard, decoded: actions, which the API adds directly, and notices, which come through the
//! outbox because they must not be lost.

use std::collections::BTreeMap;

use atrium_shared::{
    configuration::ChatAction,
    ids::{OrgId, ProjectId},
    streams::{Entry, StreamId},
};
use serde::Deserialize;
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::consumer::Message;

/// What a batch does, by organization, each in the order of the stream.
pub(super) struct Batch {
    pub(super) items: BTreeMap<OrgId, Vec<Item>>,
    pub(super) undecodable: Vec<Entry>,
}

pub(super) struct Item {
    pub(super) id: StreamId,
    pub(super) project: ProjectId,
    pub(super) kind: Kind,
    /// The event to publish; none when its project is gone, or its organization closed: nobody could see it.
    pub(super) event: Option<Event>,
}

pub(super) enum Kind {
    Action(ChatAction),
    Notice(Message),
}

impl Item {
    pub(super) fn notice(&self) -> Option<&Message> {
        match &self.kind {
            Kind::Notice(message) => Some(message),
            Kind::Action(_) => None,
        }
    }
}

/// An event of the live stream.
pub(super) struct Event {
    pub(super) name: &'static str,
    pub(super) session: String,
    /// The JSON that browsers get.
    pub(super) data: String,
    /// When it was accepted.
    pub(super) at: Option<OffsetDateTime>,
}

/// A notice's payload: a session was closed.
#[derive(Deserialize)]
struct SessionClosed {
    project_id: ProjectId,
    session_id: String,
    reason: String,
    at: String,
}

impl Batch {
    pub(super) fn decode(entries: Vec<Entry>) -> Self {
        let mut batch = Self { items: BTreeMap::new(), undecodable: Vec::new() };
        for entry in entries {
            match decode(&entry) {
                Some((org, item)) => batch.items.entry(org).or_default().push(item),
                None => batch.undecodable.push(entry),
            }
        }
        batch
    }
}

fn decode(entry: &Entry) -> Option<(OrgId, Item)> {
    if entry.fields.contains_key("outbox") {
        return decode_notice(entry);
    }
    let field = |name: &str| entry.fields.get(name).map(String::as_str);
    let org = field("org")?.parse().ok()?;
    let project: ProjectId = field("project")?.parse().ok()?;
    let action: ChatAction = serde_json::from_value(field("action")?.into()).ok()?;
    let at = field("at")?;
    let data = json!({
        "id": field("message")?,
        "project_id": project,
        "session_id": field("session")?,
        "user": { "id": field("user")?, "name": field("user_name")? },
        "action": action,
        "at": at,
    });
    let event = Event {
        name: "chat.action",
        session: field("session")?.to_owned(),
        data: data.to_string(),
        at: OffsetDateTime::parse(at, &Rfc3339).ok(),
    };
    Some((org, Item { id: entry.id, project, kind: Kind::Action(action), event: Some(event) }))
}

fn decode_notice(entry: &Entry) -> Option<(OrgId, Item)> {
    let message = Message::decode(entry)?;
    let closed = SessionClosed::deserialize(&message.payload).ok()?;
    let data = json!({ "session_id": closed.session_id, "reason": closed.reason, "at": closed.at });
    let event = Event {
        name: "chat.session-closed",
        session: closed.session_id,
        data: data.to_string(),
        at: OffsetDateTime::parse(&closed.at, &Rfc3339).ok(),
    };
    let org = message.org();
    let item =
        Item { id: entry.id, project: closed.project_id, kind: Kind::Notice(message), event: Some(event) };
    Some((org, item))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn entry(fields: &[(&str, &str)]) -> Entry {
        let fields: HashMap<_, _> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Entry { id: StreamId { ms: 7, seq: 0 }, fields }
    }

    #[test]
    fn an_action_becomes_the_event_that_browsers_get() {
        let (org, project) = (OrgId::new().to_string(), ProjectId::new().to_string());
        let batch = Batch::decode(vec![entry(&[
            ("message", "m"),
            ("org", &org),
            ("project", &project),
            ("session", "s"),
            ("user", "u"),
            ("user_name", "guest-0001"),
            ("action", "ready"),
            ("at", "2026-01-02T03:04:05Z"),
        ])]);
        let event = batch.items.values().flatten().find_map(|item| item.event.as_ref()).expect("one event");
        let data: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
        assert_eq!(event.name, "chat.action");
        assert_eq!(data["user"], json!({ "id": "u", "name": "guest-0001" }));
        assert_eq!(data["action"], "ready");
    }

    #[test]
    fn what_cannot_be_understood_is_set_apart_and_the_rest_flows() {
        let org = OrgId::new().to_string();
        let batch = Batch::decode(vec![entry(&[]), entry(&[("org", &org), ("action", "dance")])]);
        assert_eq!((batch.items.len(), batch.undecodable.len()), (0, 2));
    }
}
