//! Decodes the entries of a chat shard: actions, which the API adds directly, and notices, which are sent through the
//! outbox because they must not be lost.

use std::collections::BTreeMap;

use atrium_shared::{
    ids::{OrgId, ProjectId, SessionId},
    messages::{
        ActionEntry, ActionEvent, ActionUser, ChatAction, LiveEvent as _, SessionClosed, SessionClosedEvent,
        StreamEntry as _,
    },
    streams::{Entry, StreamId},
};
use time::OffsetDateTime;

use crate::consumer::Message;

/// The items of a batch by organization, each list in the order of the stream.
pub(super) struct Batch {
    pub(super) items: BTreeMap<OrgId, Vec<Item>>,
    pub(super) undecodable: Vec<Entry>,
}

pub(super) struct Item {
    pub(super) id: StreamId,
    pub(super) project: ProjectId,
    pub(super) kind: ItemKind,
    /// The event to publish. None if its project was deleted or its organization is closed, so that no client can see
    /// it.
    pub(super) event: Option<Event>,
}

pub(super) enum ItemKind {
    Action(ChatAction),
    Notice(Message),
}

impl Item {
    pub(super) fn notice(&self) -> Option<&Message> {
        match &self.kind {
            ItemKind::Notice(message) => Some(message),
            ItemKind::Action(_) => None,
        }
    }
}

/// An event of the live stream.
pub(super) struct Event {
    pub(super) name: &'static str,
    pub(super) session: SessionId,
    /// The JSON that is sent to browsers.
    pub(super) data: String,
    /// When the API accepted it.
    pub(super) at: OffsetDateTime,
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
    // Actions are tried first, because nearly every entry is one.
    decode_action(entry).or_else(|| decode_notice(entry))
}

fn decode_action(entry: &Entry) -> Option<(OrgId, Item)> {
    let pressed = ActionEntry::from_fields(&entry.fields).ok()?;
    let ActionEntry { project, session, action, at, .. } = pressed;
    let data = ActionEvent {
        id: pressed.message,
        project_id: project,
        session_id: session,
        user: ActionUser { id: pressed.user, name: pressed.user_name },
        action,
        at,
    };
    let data = serde_json::to_string(&data).ok()?;
    let event = Event { name: ActionEvent::NAME, session, data, at };
    Some((pressed.org, Item { id: entry.id, project, kind: ItemKind::Action(action), event: Some(event) }))
}

fn decode_notice(entry: &Entry) -> Option<(OrgId, Item)> {
    let message = Message::decode(entry)?;
    let SessionClosed { project_id: project, session_id: session, reason, at } = message.read().ok()?;
    let data = serde_json::to_string(&SessionClosedEvent { session_id: session, reason, at }).ok()?;
    let event = Event { name: SessionClosedEvent::NAME, session, data, at };
    Some((message.org(), Item { id: entry.id, project, kind: ItemKind::Notice(message), event: Some(event) }))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use atrium_shared::ids::{MessageId, UserId};

    use super::*;

    fn entry(fields: &[(&str, &str)]) -> Entry {
        let fields: HashMap<_, _> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Entry { id: StreamId { ms: 7, seq: 0 }, fields }
    }

    #[test]
    fn an_action_is_decoded_to_the_event_that_is_sent_to_browsers() {
        let pressed = ActionEntry {
            message: MessageId::new(),
            org: OrgId::new(),
            project: ProjectId::new(),
            session: SessionId::new(),
            user: UserId::new(),
            user_name: "guest-0001".to_owned(),
            action: ChatAction::Ready,
            at: OffsetDateTime::UNIX_EPOCH,
        };
        let fields = HashMap::from_iter(pressed.to_fields().expect("text"));
        let batch = Batch::decode(vec![Entry { id: StreamId { ms: 7, seq: 0 }, fields }]);
        let event = batch.items.values().flatten().find_map(|item| item.event.as_ref()).expect("one event");
        let data: ActionEvent = serde_json::from_str(&event.data).expect("JSON");
        assert_eq!((event.name, event.session), ("chat.action", pressed.session));
        assert_eq!(data.user, ActionUser { id: pressed.user, name: pressed.user_name });
        assert_eq!((data.action, data.id), (ChatAction::Ready, pressed.message));
    }

    #[test]
    fn entries_that_cannot_be_decoded_are_returned_separately() {
        let org = OrgId::new().to_string();
        let batch = Batch::decode(vec![entry(&[]), entry(&[("org", &org), ("action", "dance")])]);
        assert_eq!((batch.items.len(), batch.undecodable.len()), (0, 2));
    }
}
