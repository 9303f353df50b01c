//! Checks every message against its golden file: every release must read the file as the same value, and write that
//! value in the same way.

use std::{collections::BTreeSet, fmt::Debug, fs, path::Path};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use super::*;

const AT: OffsetDateTime = datetime!(2026-01-02 03:04:05.678 UTC);

fn id<T: From<Uuid>>(number: u8) -> T {
    let number = u128::from(number / 10 * 16 + number % 10);
    T::from(Uuid::from_u128(0x01a2_08ec_3b90_781f_a8e2_5d94_0ed9_0400 + number))
}

fn user() -> ActionUser {
    ActionUser { id: id(6), name: "guest-0001".to_owned() }
}

fn search() -> DeletionSearch {
    DeletionSearch { tables: 20, rows_found: 0, redis_keys: 7, redis_traces_found: 0 }
}

fn check<T>(text: &str, expected: &T)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    assert_eq!(&serde_json::from_str::<T>(text).expect("it is read"), expected);
    let mut golden: Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(serde_json::to_value(expected).expect("JSON"), golden, "it is serialized as before");
    golden["of_a_later_release"] = Value::from("ignored");
    assert_eq!(&serde_json::from_value::<T>(golden).expect("unknown fields are ignored"), expected);
}

fn check_entry<T>(text: &str, expected: &T)
where
    T: StreamEntry + PartialEq + Debug,
{
    check(text, expected);
    let mut fields = expected.to_fields().expect("every field is text");
    fields.push(("of_a_later_release".to_owned(), "ignored".to_owned()));
    assert_eq!(&T::from_fields(&fields.into_iter().collect()).expect("it is read"), expected);
}

/// Defines a test for each message, and the list of all of them.
macro_rules! golden {
    ($($check:ident $name:ident = $expected:expr;)*) => {
        $(#[test]
        fn $name() {
            $check(include_str!(concat!("golden/", stringify!($name), ".json")), &$expected);
        })*

        const GOLDEN: &[&str] = &[$(stringify!($name)),*];
    };
}

golden! {
    check_entry action_entry = ActionEntry {
        message: id(4),
        org: id(5),
        project: id(2),
        session: id(3),
        user: id(6),
        user_name: "guest-0001".to_owned(),
        action: ChatAction::TestsGreen,
        at: AT,
    };
    check action_event = ActionEvent {
        id: id(4),
        project_id: id(2),
        session_id: id(3),
        user: user(),
        action: ChatAction::TestsGreen,
        at: AT,
    };
    check action_user = user();
    check applied_report = AppliedReport { revision: 42, applied_at: AT };
    check_entry live_chat_entry = LiveChatEntry {
        epoch: "7f3a91c200000001".to_owned(),
        org: id(5),
        project: id(2),
        event: ActionEvent::NAME.to_owned(),
        session: id(3),
        data: "{}".to_owned(),
    };
    check deletion_certificate = DeletionCertificate {
        rows_removed: [("members".to_owned(), 2), ("orgs".to_owned(), 1)].into(),
        search: search(),
        namespaces: "there was none".to_owned(),
    };
    check deletion_search = search();
    check_entry operation_entry = OperationEntry { operation: id(1) };
    check operation_failure = OperationFailure {
        code: "canceled".to_owned(),
        detail: "it was canceled".to_owned(),
    };
    check_entry outbox_entry = OutboxEntry {
        message: id(4),
        org: id(5),
        outbox: 7,
        payload: r#"{"revision":42}"#.to_owned(),
    };
    check_entry revision_entry = RevisionEntry { org: id(5), revision: 42 };
    check revision_notice = RevisionNotice { revision: 42 };
    check saga_wake = SagaWake { saga: id(1), wake: WakeReason::Advance };
    check session_closed = SessionClosed {
        project_id: id(2),
        session_id: id(3),
        reason: CloseReason::Replaced,
        at: AT,
    };
    check session_closed_event = SessionClosedEvent { session_id: id(3), reason: CloseReason::Expired, at: AT };
}

#[test]
fn every_message_has_a_golden_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/messages");
    let files = |folder: &Path| {
        let entries = fs::read_dir(folder).expect("a folder");
        entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file()).collect::<Vec<_>>()
    };
    let golden: BTreeSet<String> = files(&folder.join("golden"))
        .iter()
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    assert_eq!(golden, GOLDEN.iter().map(|name| (*name).to_owned()).collect());

    let mut messages = BTreeSet::new();
    for file in files(&folder) {
        let source = fs::read_to_string(&file).expect("a source file");
        let structs = source.split("\npub struct ").skip(1);
        messages.extend(structs.filter_map(|rest| Some(snake_case(rest.split_once(' ')?.0))));
    }
    // An error type, which is not sent.
    messages.retain(|name| !name.starts_with("malformed_entry"));
    assert_eq!(messages, golden, "every struct of this module is a message with a golden file");
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
