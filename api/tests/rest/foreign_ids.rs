//! Sends every operation of the contract with every kind of id in every position, for every kind of caller. Ids of
//! others must be indistinguishable from ids that do not exist, and roles must permit what the contract documents.

#![expect(clippy::print_stdout, reason = "how many combinations there were, with --nocapture")]

use std::collections::BTreeMap;

use atrium_contract::Reply;
use atrium_harness::Atrium;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::{
    CheckedSend as _, assert_identical_problems,
    operations::Operation,
    world::{ROLES, World},
};

/// The relation of an id to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Own,
    /// Belongs to another organization.
    Foreign,
    /// Belongs to another member of the organization. Only chat sessions belong to one member.
    Colleagues,
    Unknown,
    Malformed,
}

/// All combinations of kinds for these ids.
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
        let extend = |choice: Vec<Kind>| kinds.iter().map(move |kind| [&choice[..], &[*kind]].concat());
        choices.into_iter().flat_map(extend).collect()
    })
}

/// A hash of the content of each table with tenant data.
async fn table_hashes(atrium: &Atrium) -> Vec<(String, Option<String>)> {
    let mut superuser = atrium.superuser().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
          WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND a.attname = 'org_id' ORDER BY 1",
    )
    .fetch_all(&mut superuser)
    .await
    .unwrap();
    let mut table_hashes = Vec::new();
    for table in tables {
        let hash = format!("SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} t");
        let hash = sqlx::query_scalar(AssertSqlSafe(hash)).fetch_one(&mut superuser).await.unwrap();
        table_hashes.push((table, hash));
    }
    table_hashes
}

#[tokio::test]
async fn foreign_ids_are_indistinguishable_from_unknown_ids() {
    let atrium = Atrium::start().await;
    let (own_world, foreign_world) =
        (World::create(&atrium, &ROLES).await, World::create(&atrium, &[]).await);
    let stranger = atrium.guest().await;
    let mut callers = vec![
        ("anonymous", atrium.client()),
        ("stranger", stranger.client.clone()),
        ("another owner", foreign_world.people["owner"].client.clone()),
    ];
    callers.extend(own_world.people.iter().map(|(role, guest)| (*role, guest.client.clone())));
    let unknown = Uuid::now_v7().to_string();
    // With the worker suspended, only a request can change the tables.
    atrium.worker(0).suspend();
    let before = table_hashes(&atrium).await;

    let mut combinations = 0;
    for operation in Operation::all() {
        let ids: Vec<_> =
            operation.path.iter().chain(&operation.body_ids).filter(|name| *name != "key").collect();
        if ids.is_empty() {
            continue;
        }
        for (caller, client) in &callers {
            // Replies in one group must be identical. For a member the group depends on which ids are the member's own,
            // and on whether any id is malformed, because malformed ids are rejected before the role is checked.
            let mut groups: BTreeMap<(Vec<bool>, bool), Vec<Reply>> = BTreeMap::new();
            for choice in choices(&ids, &operation) {
                let is_own: Vec<bool> = choice.iter().map(|kind| *kind == Kind::Own).collect();
                let is_member = ROLES.contains(caller);
                let all_own = *caller == "another owner" && choice.iter().all(|kind| *kind == Kind::Foreign);
                if (is_member && is_own.iter().all(|own| *own)) || all_own {
                    // The next test covers callers with their own ids.
                    continue;
                }
                let request = operation.request(client, |name| {
                    let kind = ids.iter().position(|id| *id == name).map_or(Kind::Own, |index| choice[index]);
                    match kind {
                        Kind::Own => own_world.own(&operation, caller, name),
                        Kind::Foreign => foreign_world.own(&operation, "owner", name),
                        Kind::Colleagues => {
                            &own_world.sessions[if *caller == "owner" { "admin" } else { "owner" }]
                        }
                        Kind::Unknown => &unknown,
                        Kind::Malformed => "no-uuid",
                    }
                });
                combinations += 1;
                let reply = operation.send(request).await.unwrap_or_else(|| {
                    panic!("{}: {caller} opened a stream with {choice:?}", operation.id);
                });
                let malformed = choice.contains(&Kind::Malformed);
                let group = if is_member { (is_own, malformed) } else { (vec![], false) };
                groups.entry(group).or_default().push(reply);
            }
            for ((own, malformed), replies) in groups {
                let rejections = match (*caller, own.first()) {
                    ("anonymous", _) => &[(401, "unauthenticated")][..],
                    // In the caller's own organization the role may be checked first.
                    (_, Some(true)) if !malformed => &[(404, "not_found"), (403, "forbidden")],
                    _ => &[(404, "not_found")],
                };
                let actual = (replies[0].code(), replies[0].problem());
                let expected =
                    rejections.iter().find(|(status, code)| actual == (*status, (*code).to_owned()));
                let (status, code) = expected
                    .unwrap_or_else(|| panic!("{}: {caller}: {}", operation.id, replies[0].describe()));
                assert_identical_problems(&replies, *status, code);
            }
        }
    }
    assert_eq!(table_hashes(&atrium).await, before, "a rejected request changed something");
    println!("{combinations} combinations of operation, ids and caller were rejected identically");
    assert!(combinations > 3_000, "{combinations}");
}

#[tokio::test]
async fn roles_permit_exactly_what_the_contract_documents() {
    let atrium = Atrium::start().await;
    let world = World::create(&atrium, &ROLES).await;
    let mut combinations = 0;
    for operation in Operation::all().iter().filter(|operation| operation.least_role.is_some()) {
        // The world's `user` is none of the callers.
        let least = operation.least_role_for_others.as_ref().or(operation.least_role.as_ref()).unwrap();
        let least = ROLES.iter().position(|role| *role == least).expect("a role");
        for (rank, role) in ROLES.into_iter().enumerate() {
            // A caller that is permitted to write does so in a world of its own.
            let new_world;
            let world = if operation.writes() && rank >= least {
                new_world = World::create(&atrium, &[role]).await;
                &new_world
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
                // A sufficient role may still meet an organization in the wrong state.
                let allowed = (200..300).contains(&status) || status == 409;
                assert!(allowed, "{}: {role}: {status} {code}", operation.id);
            }
        }
        if operation.least_role_for_others.is_some() {
            // On themselves, callers with the least role may use the operation.
            let least = operation.least_role.as_deref();
            let role = ROLES.into_iter().find(|role| Some(*role) == least).expect("a role");
            let new_world = World::create(&atrium, &[role]).await;
            let person = &new_world.people[role];
            let request = operation.request(&person.client, |name| match name {
                "user" => &person.id,
                _ => new_world.own(operation, role, name),
            });
            request.answers(204).await;
        }
    }
    println!("{combinations} combinations of operation and role");
    assert!(combinations > 80, "{combinations}");
}

#[test]
fn every_operation_of_an_organization_documents_its_minimum_role() {
    for operation in Operation::all() {
        let of_organization = operation.path.iter().any(|name| name == "org");
        assert_eq!(
            of_organization,
            operation.least_role.is_some(),
            "{}: `x-minimum-role` belongs on operations below an organization only",
            operation.id
        );
        assert!(operation.least_role.is_none_or(|role| ROLES.contains(&role.as_str())), "{}", operation.id);
    }
}

/// The client checks each response against the contract.
#[tokio::test]
async fn operations_without_ids_respond_to_every_caller_as_documented() {
    let atrium = Atrium::start().await;
    for operation in Operation::all().iter().filter(|operation| operation.path.is_empty()) {
        let reply = operation.send(operation.request(&atrium.client(), |_| "")).await.unwrap();
        assert_eq!(reply.code() == 401, !operation.public, "{}", reply.describe());
        let reply = operation.send(operation.request(&atrium.guest().await.client, |_| "")).await.unwrap();
        assert!(reply.code() < 500, "{}", reply.describe());
    }
}
