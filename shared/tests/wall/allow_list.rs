//! The list of what there may be: every table, grant, policy, key, trigger and function, one to a line.
//!
//! `allow_list.txt` is that list; `catalog.sql` reads the same lines from the database. A migration changes the list in
//! the same commit, so that a reviewer reads what it grants. The rules that no line can weaken are in the next file.

use std::collections::BTreeSet;

use atrium_harness::TestDatabase;
use sqlx::PgConnection;

const ALLOWED: &str = include_str!("allow_list.txt");

/// What a policy's comparison with the transaction's tenant looks like in the catalog, and in the list.
const TENANTS: [(&str, &str); 2] = [
    (
        "( SELECT (NULLIF(current_setting('app.org_id'::text, true), ''::text))::uuid AS \"nullif\")",
        "the_org",
    ),
    (
        "( SELECT (NULLIF(current_setting('app.user_id'::text, true), ''::text))::uuid AS \"nullif\")",
        "the_user",
    ),
];

#[tokio::test]
async fn the_database_catalog_equals_the_allow_list() {
    let database = TestDatabase::create().await;
    let differences = differences(&mut database.superuser().await).await;
    assert!(
        differences.is_empty(),
        "If this is meant, change shared/tests/wall/allow_list.txt:\n{}",
        differences.join("\n")
    );
}

/// What to add to the list, and what to remove from it, line by line.
pub(crate) async fn differences(connection: &mut PgConnection) -> Vec<String> {
    let there = facts(connection).await;
    let allowed: BTreeSet<String> = ALLOWED
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    let add = there.difference(&allowed).map(|line| format!("add     {line}"));
    let remove = allowed.difference(&there).map(|line| format!("remove  {line}"));
    add.chain(remove).collect()
}

/// The catalog's lines, sorted by what they are about.
async fn facts(connection: &mut PgConnection) -> BTreeSet<String> {
    let lines: Vec<String> = sqlx::query_scalar(include_str!("catalog.sql"))
        .fetch_all(connection)
        .await
        .expect("the catalog can be read");
    lines
        .into_iter()
        .map(|line| {
            // The role number 0, which means all roles, has no name.
            let line = line.replace(": - may ", ": PUBLIC may ").replace(" to - ", " to PUBLIC ");
            let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
            TENANTS.iter().fold(line, |line, (long, short)| line.replace(long, short))
        })
        .collect()
}
