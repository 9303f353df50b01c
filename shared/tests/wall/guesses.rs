//! Whether a response reveals that another tenant has a value: every key and every reference is tried with another
//! tenant's value and with an unused one, in a row of the caller.

use std::collections::BTreeSet;

use atrium_harness::TestDatabase;
use sqlx::PgConnection;

use crate::{
    matrix::{Entry, Outcome, Verb, Viewpoint, statement},
    rows::{Table, World},
};

/// Keys that must be unique among all tenants, so that a clash can be seen. The server makes the values, from at least
/// 48 random bits; no request names one.
const UNIQUE_AMONG_ALL: &[&str] = &["org_slugs_pkey", "revoked_auth_sessions_pkey"];
/// Users are outside of organizations, so a reference to one reveals whether they exist. The server takes their ids
/// from tokens and from members' lists.
const OUTSIDE_OF_ORGANIZATIONS: &str = "users";

/// A constraint, and the row that tries it.
pub(crate) struct Guess<'a> {
    table: &'a Table,
    pub(crate) constraint: &'a str,
    columns: Vec<&'a String>,
    refers_to: Option<&'a str>,
}

/// Every guess that the application could make about a table.
pub(crate) fn guesses<'a>(world: &'a World, table: &'a Table) -> Vec<Guess<'a>> {
    debug_assert!(world.tenants[0].rows.contains_key(&table.name));
    let insertable = table.insertable();
    let other = |column: &&String| **column != table.tenant;
    let keys = table.unique().map(|key| Guess {
        table,
        constraint: &key.name,
        // A reference is a guess of its own.
        columns: key.columns.iter().filter(other).filter(|column| !table.is_reference(column)).collect(),
        refers_to: None,
    });
    let references = table.references().map(|reference| Guess {
        table,
        constraint: &reference.name,
        columns: reference.columns.iter().filter(other).collect(),
        refers_to: reference.target.as_deref(),
    });
    keys.chain(references)
        .filter(|guess| !guess.columns.is_empty())
        .filter(|guess| guess.columns.iter().all(|column| insertable.contains(&column.as_str())))
        .collect()
}

impl Guess<'_> {
    /// Whether the difference is known, and explained above.
    pub(crate) fn is_known(&self) -> bool {
        UNIQUE_AMONG_ALL.contains(&self.constraint) || self.refers_to == Some(OUTSIDE_OF_ORGANIZATIONS)
    }

    /// The results for another tenant's value and for an unused one.
    pub(crate) async fn tried(
        &self,
        connection: &mut PgConnection,
        entry: Entry,
        world: &World,
    ) -> (Outcome, Outcome) {
        let [us, them] = &world.tenants;
        let mut own = us.row(self.table).clone();
        for column in self.table.unique().flat_map(|key| &key.columns) {
            if *column != self.table.tenant && !self.table.is_reference(column) {
                self.table.scramble(&mut own, column);
            }
        }
        let (mut theirs, mut nobodys) = (own.clone(), own);
        for column in &self.columns {
            let target = self.refers_to.and_then(|target| them.rows.get(target));
            let value = self.table.referred(self.constraint, column).zip(target);
            let value = value.and_then(|(there, row)| row.get(there));
            let value = value.unwrap_or(&them.row(self.table)[column.as_str()]);
            theirs.insert((*column).clone(), value.clone());
            self.table.scramble(&mut nobodys, column);
        }
        let named = Viewpoint::Own.named(us);
        let try_it = async |connection: &mut PgConnection, row| {
            let insert = statement(self.table, Verb::Insert, row);
            entry.run(connection, &named, &[insert]).await.without_values()
        };
        (try_it(connection, &theirs).await, try_it(connection, &nobodys).await)
    }
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the test says how much it tried")]
async fn a_guess_is_answered_alike_whether_somebody_has_it_or_nobody() {
    let database = TestDatabase::create().await;
    let world = World::make(&mut database.superuser().await).await;
    let mut connection = database.app().await;
    let (mut tried, mut differ, mut unexplained) = (0, BTreeSet::new(), Vec::new());
    for table in &world.tables {
        for guess in guesses(&world, table) {
            tried += 1;
            let (theirs, nobodys) = guess.tried(&mut connection, Entry::Transaction, &world).await;
            if theirs == nobodys {
                continue;
            }
            differ.insert(guess.constraint.to_owned());
            if !guess.is_known() {
                unexplained.push(format!("{}: {theirs}; of nobody: {nobodys}", guess.constraint));
            }
        }
    }
    println!("wall guesses: {tried} tried, {} differ and are explained", differ.len());
    assert!(unexplained.is_empty(), "{unexplained:#?}");
    // The explanation is of something.
    for known in UNIQUE_AMONG_ALL.iter().copied().chain(["members_user_fkey"]) {
        assert!(differ.contains(known), "{known} does not differ: {differ:?}");
    }
}
