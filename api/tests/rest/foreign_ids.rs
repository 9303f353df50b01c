//! Every operation of the contract, called with every kind of id by every kind of caller: foreign and unknown ids get
//! the same response, and a role decides as the contract says.

#![expect(clippy::print_stdout, reason = "how many combinations there were, with --nocapture")]

use std::collections::BTreeMap;

use atrium_contract::Reply;
use atrium_harness::Atrium;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::{
    Ask as _, alike,
    operations::Operation,
    world::{ROLES, World},
};

/// The relation of an id to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Own,
    /// Of another organization.
    Foreign,
    /// Of another member of the organization; only a chat session is one person's.
    Colleagues,
    Unknown,
    Malformed,
}

/// All ways to choose a kind for each of these ids.
fn choices(ids: &[&String], operation: &Operation) -> Vec<Vec<Kind>> {
    ids.iter().fold(vec![vec![]], |choices, id| {
        let mut kinds = vec![Kind::Own, Kind::Foreign, Kind::Unknown];
        // In a body, a malformed id is an ordinary validation error.
        if !operation.body_ids.contains(id) {
            kinds.push(Kind::Malformed);
        }
        if *id == "session" {
            kinds.push(Kind::Colleagues);
        }
        let further = |choice: Vec<Kind>| kinds.iter().map(move |kind| [&choice[..], &[*kind]].concat());
        choices.into_iter().flat_map(further).collect()
    })
}

/// The contents of every tenant's tables.
async fn contents(atrium: &Atrium) -> Vec<(String, Option<String>)> {
    let mut superuser = atrium.superuser().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
          WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND a.attname = 'org_id' ORDER BY 1",
    )
    .fetch_all(&mut superuser)
    .await
    .unwrap();
    let mut contents = Vec::new();
    for table in tables {
        let hash = format!("SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} t");
        let hash = sqlx::query_scalar(AssertSqlSafe(hash)).fetch_one(&mut superuser).await.unwrap();
        contents.push((table, hash));
    }
    contents
}

#[tokio::test]
async fn foreign_and_unknown_resources_get_the_same_response() {
    let atrium = Atrium::start().await;
    let (here, elsewhere) = (World::create(&atrium, &ROLES).await, World::create(&atrium, &[]).await);
    let stranger = atrium.guest().await;
    let mut callers = vec![
        ("anonymous", atrium.client()),
        ("stranger", stranger.client.clone()),
        ("another owner", elsewhere.people["owner"].client.clone()),
    ];
    callers.extend(here.people.iter().map(|(role, guest)| (*role, guest.client.clone())));
    let unknown = Uuid::now_v7().to_string();
    // What changes from now on was changed by a request.
    atrium.worker(0).suspend();
    let before = contents(&atrium).await;

    let mut combinations = 0;
    for operation in Operation::all() {
        let ids: Vec<_> =
            operation.path.iter().chain(&operation.body_ids).filter(|name| *name != "key").collect();
        if ids.is_empty() {
            continue;
        }
        for (caller, client) in &callers {
            // The cases with indistinguishable responses. For a member they depend on which ids are theirs, and on
            // whether all are well-formed: a malformed id is rejected before the role is checked.
            let mut groups: BTreeMap<(Vec<bool>, bool), Vec<Reply>> = BTreeMap::new();
            for choice in choices(&ids, &operation) {
                let is_own: Vec<bool> = choice.iter().map(|kind| *kind == Kind::Own).collect();
                let is_member = ROLES.contains(caller);
                let theirs = *caller == "another owner" && choice.iter().all(|kind| *kind == Kind::Foreign);
                if (is_member && is_own.iter().all(|own| *own)) || theirs {
                    // A member with their own ids: the next test.
                    continue;
                }
                let request = operation.request(client, |name| {
                    let kind = ids.iter().position(|id| *id == name).map_or(Kind::Own, |index| choice[index]);
                    match kind {
                        Kind::Own => here.own(&operation, caller, name),
                        Kind::Foreign => elsewhere.own(&operation, "owner", name),
                        Kind::Colleagues => {
                            &here.sessions[if *caller == "owner" { "admin" } else { "owner" }]
                        }
                        Kind::Unknown => &unknown,
                        Kind::Malformed => "no-uuid",
                    }
                });
                combinations += 1;
                let reply = operation.send(request).await.unwrap_or_else(|| {
                    panic!("{}: {caller} opens a stream of {choice:?}", operation.id);
                });
                let malformed = choice.contains(&Kind::Malformed);
                let group = if is_member { (is_own, malformed) } else { (vec![], false) };
                groups.entry(group).or_default().push(reply);
            }
            for ((own, malformed), replies) in groups {
                let refusals = match (*caller, own.first()) {
                    ("anonymous", _) => &[(401, "unauthenticated")][..],
                    // In one's own organization the role may be looked at first.
                    (_, Some(true)) if !malformed => &[(404, "not_found"), (403, "forbidden")],
                    _ => &[(404, "not_found")],
                };
                let came = (replies[0].code(), replies[0].problem());
                let expected = refusals.iter().find(|(status, code)| came == (*status, (*code).to_owned()));
                let (status, code) = expected
                    .unwrap_or_else(|| panic!("{}: {caller}: {}", operation.id, replies[0].describe()));
                alike(&replies, *status, code);
            }
        }
    }
    assert_eq!(contents(&atrium).await, before, "a refusal changed something");
    println!("{combinations} combinations of operation, ids and caller were refused alike");
    assert!(combinations > 3_000, "{combinations}");
}

#[tokio::test]
async fn a_role_decides_as_the_contract_says() {
    let atrium = Atrium::start().await;
    let world = World::create(&atrium, &ROLES).await;
    let mut combinations = 0;
    for operation in Operation::all().iter().filter(|operation| operation.least_role.is_some()) {
        // The world's `user` is none of these.
        let least = operation.least_role_for_others.as_ref().or(operation.least_role.as_ref()).unwrap();
        let least = ROLES.iter().position(|role| *role == least).expect("a role");
        for (rank, role) in ROLES.into_iter().enumerate() {
            // Every caller with the permission performs the change, each in a world of their own.
            let fresh;
            let world = if operation.writes() && rank >= least {
                fresh = World::create(&atrium, &[role]).await;
                &fresh
            } else {
                &world
            };
            let client = &world.people[role].client;
            let request = operation.request(client, |name| world.own(operation, role, name));
            let reply = operation.send(request).await;
            combinations += 1;
            let (status, code) =
                reply.as_ref().map_or((200, String::new()), |reply| (reply.code(), reply.problem()));
            if rank < least {
                assert_eq!((status, code.as_str()), (403, "forbidden"), "{}: {role}", operation.id);
            } else {
                // A role that is enough does not mean that the organization is in a state for it.
                let allowed = (200..300).contains(&status) || status == 409;
                assert!(allowed, "{}: {role}: {status} {code}", operation.id);
            }
        }
        if operation.least_role_for_others.is_some() {
            // Members may do it to themselves with the lowest role.
            let least = operation.least_role.as_deref();
            let role = ROLES.into_iter().find(|role| Some(*role) == least).expect("a role");
            let fresh = World::create(&atrium, &[role]).await;
            let person = &fresh.people[role];
            let request = operation.request(&person.client, |name| match name {
                "user" => &person.id,
                _ => fresh.own(operation, role, name),
            });
            request.answers(204).await;
        }
    }
    println!("{combinations} combinations of operation and role");
    assert!(combinations > 80, "{combinations}");
}

#[test]
fn every_operation_below_an_organization_documents_its_minimum_role() {
    for operation in Operation::all() {
        let of_organization = operation.path.iter().any(|name| name == "org");
        assert_eq!(
            of_organization,
            operation.least_role.is_some(),
            "{}: `x-minimum-role` stands on what lies below an organization, and nowhere else",
            operation.id
        );
        assert!(operation.least_role.is_none_or(|role| ROLES.contains(&role.as_str())), "{}", operation.id);
    }
}

/// Operations without ids respond to every caller as documented; the contract client checks it.
#[tokio::test]
async fn operations_without_ids_respond_to_all_callers_as_documented() {
    let atrium = Atrium::start().await;
    for operation in Operation::all().iter().filter(|operation| operation.path.is_empty()) {
        let reply = operation.send(operation.request(&atrium.client(), |_| "")).await.unwrap();
        assert_eq!(reply.code() == 401, !operation.public, "{}", reply.describe());
        let reply = operation.send(operation.request(&atrium.guest().await.client, |_| "")).await.unwrap();
        assert!(reply.code() < 500, "{}", reply.describe());
    }
}
