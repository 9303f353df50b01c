//! Closed lists: what a CHECK of the database allows is what the enum in Rust holds, and each kind of list is written in
//! one way.

use std::collections::{BTreeMap, BTreeSet};

use atrium_harness::TestDatabase;
use atrium_shared::{
    api_key::ApiScope,
    audit::{Action, ActorKind},
    configuration::{HistoryAction, SessionOverflow, catalog},
    messages::{ChatAction, CloseReason, Topic},
    organizations::SuspendedBy,
    saga::{SagaKind, SagaStatus, StepStatus},
    tenancy::{OrgStatus, Role},
    timings::STATEMENT_TIMEOUT,
};
use serde::Serialize;
use sqlx::{Encode, Postgres, Type};
use strum::VariantArray;

type Names = BTreeSet<String>;

/// Every column with a closed list, and the enum that it holds.
fn columns() -> BTreeMap<&'static str, Names> {
    BTreeMap::from([
        ("audit_log.actor_kind", names::<ActorKind>()),
        ("chat_sessions.close_reason", names::<CloseReason>()),
        ("config_history.action", names::<HistoryAction>()),
        ("invitations.role", names::<Role>()),
        ("members.role", names::<Role>()),
        ("orgs.status", names::<OrgStatus>()),
        ("orgs.suspended_by", names::<SuspendedBy>()),
        ("outbox.topic", names::<Topic>()),
        ("saga_steps.status", names::<StepStatus>()),
        ("sagas.status", names::<SagaStatus>()),
    ])
}

fn names<E: VariantArray + Copy + Into<&'static str>>() -> Names {
    E::VARIANTS.iter().map(|variant| (*variant).into().to_owned()).collect()
}

/// A list within a CHECK.
#[derive(Debug, PartialEq)]
struct List {
    column: String,
    values: Names,
    /// The CHECK says nothing else, so the list is everything that the column may hold.
    whole: bool,
}

/// The lists in a CHECK, as PostgreSQL writes it down.
fn lists(definition: &str) -> Vec<List> {
    const BEGIN: &str = " = ANY (ARRAY[";
    let mut found = Vec::new();
    for (at, _) in definition.match_indices(BEGIN) {
        let column = definition[..at].rsplit(['(', ' ']).next().unwrap_or_default();
        let (inside, _) = definition[at + BEGIN.len()..].split_once("])").expect("the end of a list");
        let values = inside.split(", ").map(|value| {
            let value =
                value.trim_end_matches("::text").strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
            value.unwrap_or_else(|| panic!("{definition}: not a list of texts")).to_owned()
        });
        found.push(List {
            column: column.to_owned(),
            values: values.collect(),
            whole: definition == format!("CHECK (({column}{BEGIN}{inside}])))"),
        });
    }
    found
}

#[test]
fn a_list_in_a_check_is_read_whole_or_as_a_part() {
    let whole = lists("CHECK ((role = ANY (ARRAY['owner'::text, 'admin'::text])))");
    let values = Names::from(["admin".to_owned(), "owner".to_owned()]);
    assert_eq!(whole, [List { column: "role".to_owned(), values, whole: true }]);
    let part = lists("CHECK (((status = ANY (ARRAY['FAILED'::text])) = (failure IS NOT NULL)))");
    let values = Names::from(["FAILED".to_owned()]);
    assert_eq!(part, [List { column: "status".to_owned(), values, whole: false }]);
    assert_eq!(lists("CHECK ((length(reason) <= 500))"), []);
}

#[tokio::test]
async fn a_check_allows_exactly_what_its_enum_holds() {
    let database = TestDatabase::create().await;
    let checks: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT conrelid::regclass::text, conname::text, pg_get_constraintdef(oid) FROM pg_constraint
          WHERE contype = 'c' AND connamespace = 'public'::regnamespace ORDER BY 1, 2",
    )
    .fetch_all(&mut database.superuser().await)
    .await
    .expect("the constraints");
    let columns = columns();
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for (table, check, definition) in &checks {
        for List { column, values, whole } in lists(definition) {
            let Some((column, known)) = columns.get_key_value(format!("{table}.{column}").as_str()) else {
                wrong.push(format!(
                    "{table}: {check} lists values of {column}, for which no enum is registered here"
                ));
                continue;
            };
            if whole {
                seen.insert(*column);
            }
            if if whole { values != *known } else { !values.is_subset(known) } {
                wrong.push(format!("{table}: {check} lists {values:?}, but the enum {known:?}"));
            }
        }
    }
    let unseen = columns.keys().filter(|column| !seen.contains(*column));
    wrong.extend(unseen.map(|column| format!("no CHECK lists the values of {column}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_value_has_one_name_in_sql_json_and_rust() {
    let database = TestDatabase::create().await;
    in_sql::<CloseReason>(&database).await;
    in_sql::<OrgStatus>(&database).await;
    in_sql::<Role>(&database).await;
    in_sql::<SagaStatus>(&database).await;
    in_sql::<StepStatus>(&database).await;
    in_sql::<SuspendedBy>(&database).await;
    in_sql::<Topic>(&database).await;
    in_json::<ApiScope>();
    in_json::<ChatAction>();
    in_json::<CloseReason>();
    in_json::<OrgStatus>();
    in_json::<Role>();
    in_json::<SagaStatus>();
    in_json::<StepStatus>();
    in_json::<SuspendedBy>();
}

async fn in_sql<E>(database: &TestDatabase)
where
    E: VariantArray + Copy + Into<&'static str> + Type<Postgres> + for<'q> Encode<'q, Postgres> + Send + Sync,
{
    let mut connection = database.superuser().await;
    for variant in E::VARIANTS {
        let name: String = sqlx::query_scalar("SELECT $1::text")
            .bind(*variant)
            .fetch_one(&mut connection)
            .await
            .expect("a name");
        assert_eq!(name, (*variant).into());
    }
}

fn in_json<E: VariantArray + Copy + Into<&'static str> + Serialize>() {
    for variant in E::VARIANTS {
        assert_eq!(serde_json::to_value(variant).expect("JSON"), (*variant).into());
    }
}

#[test]
fn each_kind_of_list_is_written_in_one_way() {
    let words = |name: &str, letter: fn(&u8) -> bool| {
        !name.is_empty() && name.split('_').all(|word| !word.is_empty() && word.as_bytes().iter().all(letter))
    };
    let snake = |name: &str| words(name, u8::is_ascii_lowercase);
    let screaming = |name: &str| words(name, u8::is_ascii_uppercase);
    let pair = |name: &str, between: char| {
        name.split_once(between).is_some_and(|(noun, verb)| snake(noun) && snake(verb))
    };

    let all = |lists: &[Names]| -> Vec<String> { lists.iter().flatten().cloned().collect() };
    let statuses = all(&[names::<OrgStatus>(), names::<SagaStatus>(), names::<StepStatus>()]);
    let others = all(&[
        names::<ActorKind>(),
        names::<ChatAction>(),
        names::<CloseReason>(),
        names::<HistoryAction>(),
        names::<Role>(),
        names::<SessionOverflow>(),
        names::<SuspendedBy>(),
        names::<Topic>(),
    ]);
    let dotted = all(&[names::<Action>(), names::<SagaKind>()]);
    let keys: Vec<String> = catalog::all().iter().map(|key| key.name.to_owned()).collect();

    let wrong = |names: Vec<String>, rule: &dyn Fn(&str) -> bool| -> Vec<String> {
        names.into_iter().filter(|name| !rule(name)).collect()
    };
    assert_eq!(wrong(statuses, &screaming), [""; 0], "statuses are SCREAMING_SNAKE_CASE");
    assert_eq!(wrong(others, &snake), [""; 0], "roles, topics, reasons and actions are snake_case");
    let scopes = names::<ApiScope>().into_iter().collect();
    assert_eq!(wrong(scopes, &|name| pair(name, ':')), [""; 0], "scopes are noun:verb");
    assert_eq!(
        wrong(dotted, &|name| pair(name, '.')),
        [""; 0],
        "audit actions and kinds of sagas are noun.verb"
    );
    assert_eq!(wrong(keys, &|name| pair(name, '.')), [""; 0], "configuration keys are dotted snake_case");
}

#[tokio::test]
async fn a_statement_ends_before_its_answer_is_given_up() {
    let database = TestDatabase::create().await;
    let timeout: i64 = sqlx::query_scalar(
        "SELECT (EXTRACT(EPOCH FROM substring(setting FROM '=(.*)')::interval) * 1000)::bigint
           FROM pg_roles, unnest(rolconfig) AS setting
          WHERE rolname = 'atrium_app' AND setting LIKE 'statement_timeout=%'",
    )
    .fetch_one(&mut database.superuser().await)
    .await
    .expect("the role has a time limit");
    assert_eq!(u128::try_from(timeout).expect("a time"), STATEMENT_TIMEOUT.as_millis());
}
