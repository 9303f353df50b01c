//! Closed lists: a CHECK of the database allows exactly the values of the Rust enum, and each kind of list has one
//! casing.

use std::collections::{BTreeMap, BTreeSet};

use atrium_harness::{
    TestDatabase,
    casing::{is_pair, is_screaming, is_snake},
};
use atrium_shared::{
    api_key::ApiScope,
    audit::{Action, ActorKind},
    configuration::{
        HistoryAction, SessionOverflow, Source,
        catalog::{self, Scope, Setter},
    },
    messages::{ChatAction, CloseReason, Topic, WakeReason},
    organizations::SuspendedBy,
    saga::{SagaKind, SagaStatus, StepStatus},
    tenancy::{OrgStatus, Role},
    timings::STATEMENT_TIMEOUT,
};
use serde::Serialize;
use sqlx::{Encode, Postgres, Type};
use strum::VariantArray;

type Names = BTreeSet<String>;

/// Every column with a closed list, and its enum.
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
    /// The CHECK has no other condition, so the list is everything that the column allows.
    whole: bool,
}

/// The lists in a CHECK, as PostgreSQL writes it down. A list of one value is a comparison with it.
fn lists(definition: &str) -> Vec<List> {
    [(" = ANY (ARRAY[", "])"), (" = '", "'::text"), (" <> '", "'::text")]
        .into_iter()
        .flat_map(|(begin, end)| lists_between(definition, begin, end))
        .collect()
}

fn lists_between(definition: &str, begin: &str, end: &str) -> Vec<List> {
    let mut found = Vec::new();
    for (at, _) in definition.match_indices(begin) {
        let column = definition[..at].rsplit(['(', ' ']).next().unwrap_or_default();
        let (inside, _) = definition[at + begin.len()..].split_once(end).expect("the end of a list");
        let values = inside.split(", ").map(|value| value.trim_end_matches("::text").trim_matches('\''));
        let values: Names = values.map(str::to_owned).collect();
        assert!(values.iter().all(|value| !value.contains(['\'', ':'])), "{definition}: not a list of texts");
        let whole = !begin.contains("<>") && definition == format!("CHECK (({column}{begin}{inside}{end}))");
        found.push(List { column: column.to_owned(), values, whole });
    }
    found
}

#[test]
fn check_constraints_are_parsed() {
    let whole = lists("CHECK ((role = ANY (ARRAY['owner'::text, 'admin'::text])))");
    let values = Names::from(["admin".to_owned(), "owner".to_owned()]);
    assert_eq!(whole, [List { column: "role".to_owned(), values, whole: true }]);
    let part = lists("CHECK (((status = ANY (ARRAY['FAILED'::text])) = (failure IS NOT NULL)))");
    let values = Names::from(["FAILED".to_owned()]);
    assert_eq!(part, [List { column: "status".to_owned(), values, whole: false }]);
    let one = |whole| List { column: "action".to_owned(), values: Names::from(["set".to_owned()]), whole };
    assert_eq!(lists("CHECK ((action = 'set'::text))"), [one(true)]);
    assert_eq!(lists("CHECK ((action <> 'set'::text))"), [one(false)]);
    assert_eq!(lists("CHECK (((action = 'set'::text) = (new_value IS NOT NULL)))"), [one(false)]);
    assert_eq!(lists("CHECK ((length(reason) <= 500))"), []);
}

#[tokio::test]
async fn check_constraints_equal_their_enums() {
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
async fn closed_lists_have_the_same_values_in_sql_json_and_rust() {
    let database = TestDatabase::create().await;
    in_sql::<ActorKind>(&database).await;
    in_sql::<CloseReason>(&database).await;
    in_sql::<HistoryAction>(&database).await;
    in_sql::<OrgStatus>(&database).await;
    in_sql::<Role>(&database).await;
    in_sql::<SagaStatus>(&database).await;
    in_sql::<StepStatus>(&database).await;
    in_sql::<SuspendedBy>(&database).await;
    in_sql::<Topic>(&database).await;
    in_json::<ActorKind>();
    in_json::<ApiScope>();
    in_json::<ChatAction>();
    in_json::<CloseReason>();
    in_json::<HistoryAction>();
    in_json::<OrgStatus>();
    in_json::<Role>();
    in_json::<Scope>();
    in_json::<Setter>();
    in_json::<Source>();
    in_json::<WakeReason>();
    in_json::<SagaKind>();
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
fn each_kind_of_closed_list_has_one_casing() {
    let all = |lists: &[Names]| -> Vec<String> { lists.iter().flatten().cloned().collect() };
    let statuses = all(&[names::<OrgStatus>(), names::<SagaStatus>(), names::<StepStatus>()]);
    let others = all(&[
        names::<ActorKind>(),
        names::<ChatAction>(),
        names::<CloseReason>(),
        names::<HistoryAction>(),
        names::<Role>(),
        names::<Scope>(),
        names::<SessionOverflow>(),
        names::<Setter>(),
        names::<Source>(),
        names::<SuspendedBy>(),
        names::<Topic>(),
        names::<WakeReason>(),
    ]);
    let dotted = all(&[names::<Action>(), names::<SagaKind>()]);
    let keys: Vec<String> = catalog::all().iter().map(|key| key.name.to_owned()).collect();

    let wrong = |names: Vec<String>, rule: &dyn Fn(&str) -> bool| -> Vec<String> {
        names.into_iter().filter(|name| !rule(name)).collect()
    };
    assert_eq!(wrong(statuses, &is_screaming), [""; 0], "statuses are SCREAMING_SNAKE_CASE");
    assert_eq!(wrong(others, &is_snake), [""; 0], "roles, topics, reasons and actions are snake_case");
    let scopes = names::<ApiScope>().into_iter().collect();
    assert_eq!(wrong(scopes, &|name| is_pair(name, ':')), [""; 0], "scopes are noun:verb");
    assert_eq!(
        wrong(dotted, &|name| is_pair(name, '.')),
        [""; 0],
        "audit actions and kinds of sagas are noun.verb"
    );
    assert_eq!(wrong(keys, &|name| is_pair(name, '.')), [""; 0], "configuration keys are dotted snake_case");
}

#[tokio::test]
async fn the_statement_timeout_is_shorter_than_the_response_timeout() {
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
