//! Every table × every verb × every tenant, on fresh and on reused connections, generated from the catalog: a table
//! that is added later is in it the day it is added.
//!
//! Own rows can be used as granted. A foreign row gets the same result as a missing row, which is 0 rows or a denial.

use std::fmt;

use atrium_harness::TestDatabase;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, postgres::PgDatabaseError};

use crate::{
    guesses::guesses,
    rows::{Inhabitant, Row, Table, World, quoted},
};

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Select,
    Insert,
    Update,
    Delete,
    OnConflict,
    Merge,
}

impl Verb {
    pub(crate) const ALL: [Self; 6] =
        [Self::Select, Self::Insert, Self::Update, Self::Delete, Self::OnConflict, Self::Merge];
}

/// Whom the transaction names, and whose row it is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Viewpoint {
    /// An organization and its member, after their own row.
    Own,
    /// The same, after another organization's row.
    Foreign,
    /// A user and no organization, after a row of an organization they are no member of.
    Stranger,
    /// No tenant, after a transaction with one.
    Nobody,
}

impl Viewpoint {
    pub(crate) const ALL: [Self; 4] = [Self::Own, Self::Foreign, Self::Stranger, Self::Nobody];

    /// The statements that name them.
    pub(crate) fn named(self, us: &Inhabitant) -> String {
        let set = |org: &str, user: &str| {
            format!("SET LOCAL app.org_id = '{org}'; SET LOCAL app.user_id = '{user}'")
        };
        match self {
            Self::Own | Self::Foreign => set(&us.org.to_string(), &us.user.to_string()),
            Self::Stranger => set("", &us.user.to_string()),
            Self::Nobody => String::new(),
        }
    }
}

/// What came of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Rows(u64),
    Refused { code: String, text: String, constraint: Option<String> },
}

impl Outcome {
    fn of(result: sqlx::Result<sqlx::postgres::PgQueryResult>) -> Self {
        match result {
            Ok(result) => Self::Rows(result.rows_affected()),
            Err(error) => {
                let error = error.as_database_error().unwrap_or_else(|| panic!("{error}"));
                let error = error.downcast_ref::<PgDatabaseError>();
                // Detail and hint are text, too.
                let text = [Some(error.message()), error.detail(), error.hint()];
                let text = text.into_iter().flatten().collect::<Vec<_>>().join("; ");
                let constraint = error.constraint().map(str::to_owned);
                Self::Refused { code: error.code().to_owned(), text, constraint }
            }
        }
    }

    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Rows(_) => None,
            Self::Refused { code, .. } => Some(code),
        }
    }

    /// Without the detail, in which PostgreSQL repeats the values of the row.
    pub(crate) fn without_values(self) -> Self {
        match self {
            Self::Refused { code, text, constraint } => {
                let text = text.split(';').next().unwrap_or_default().to_owned();
                Self::Refused { code, text, constraint }
            }
            rows @ Self::Rows(_) => rows,
        }
    }

    /// Whether it was denied for lack of a privilege, and not by a policy or a trigger.
    fn is_denied(&self) -> bool {
        let denied = |text: &str| text.starts_with("permission denied") || text.starts_with("must be owner");
        matches!(self, Self::Refused { text, .. } if denied(text))
    }

    /// Whether nothing was seen and nothing touched.
    fn is_nothing(&self) -> bool {
        *self == Self::Rows(0) || self.code() == Some("42501")
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows(rows) => write!(f, "{rows} rows"),
            Self::Refused { code, text, .. } => write!(f, "{code} {text}"),
        }
    }
}

/// How a cell gets onto a connection as the application, and leaves nothing behind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entry {
    /// The connection is the application's own.
    Transaction,
    /// The connection is the superuser's, inside a transaction; it becomes this role.
    Savepoint(&'static str),
}

impl Entry {
    /// Runs statements in one transaction as the role and tenant of `named`; returns the result of the last one, or of
    /// the first denied one.
    pub(crate) async fn run(
        self,
        connection: &mut PgConnection,
        named: &str,
        statements: &[String],
    ) -> Outcome {
        let (enter, leave) = match self {
            Self::Transaction => ("BEGIN".to_owned(), "ROLLBACK"),
            Self::Savepoint(role) => {
                (format!("SAVEPOINT cell; SET LOCAL ROLE {role}"), "ROLLBACK TO SAVEPOINT cell")
            }
        };
        let (last, before) = statements.split_last().expect("a cell has a statement");
        let mut begin = format!("{enter}; {named};");
        for statement in before {
            let done = sqlx::raw_sql(AssertSqlSafe(format!("{begin} {statement}")));
            let outcome = Outcome::of(done.execute(&mut *connection).await);
            if outcome.code().is_some() {
                sqlx::raw_sql(leave).execute(connection).await.expect("a cell can be left");
                return outcome;
            }
            begin.clear();
        }
        // In one message with what goes before it, which affects no rows.
        let tried = sqlx::raw_sql(AssertSqlSafe(format!("{begin} {last}")));
        let outcome = Outcome::of(tried.execute(&mut *connection).await);
        sqlx::raw_sql(leave).execute(connection).await.expect("a cell can be left");
        outcome
    }
}

/// One cell: returns its errors, if any.
pub(crate) async fn cell(
    connection: &mut PgConnection,
    entry: Entry,
    world: &World,
    table: &Table,
    verb: Verb,
    viewpoint: Viewpoint,
) -> Option<String> {
    let [us, them] = &world.tenants;
    let named = viewpoint.named(us);
    let what = format!("{} {verb:?} {viewpoint:?}", table.name);
    if viewpoint == Viewpoint::Own {
        let outcome = entry.run(connection, &named, &own(table, verb, us.row(table))).await;
        return (!expected(table, verb, &outcome)).then(|| format!("{what}: {outcome}"));
    }
    let target = if viewpoint == Viewpoint::Nobody { us } else { them };
    let foreign = entry.run(connection, &named, &[statement(table, verb, target.row(table))]).await;
    let random = entry.run(connection, &named, &[statement(table, verb, &nobodys(table, us))]).await;
    if foreign != random || !foreign.is_nothing() {
        return Some(format!("{what}: {foreign}; of nobody: {random}"));
    }
    for further in further(table, verb, viewpoint, us, them) {
        let outcome = entry.run(connection, &named, std::slice::from_ref(&further)).await;
        if !outcome.is_nothing() {
            return Some(format!("{what}: {outcome}, by {further}"));
        }
    }
    None
}

/// Whether this is how one's own row answers to what is granted.
fn expected(table: &Table, verb: Verb, outcome: &Outcome) -> bool {
    let (inserts, updates) = (!table.insertable().is_empty(), !table.updatable().is_empty());
    let granted = match verb {
        Verb::Select => table.may_select,
        Verb::Insert | Verb::OnConflict => inserts,
        Verb::Update => updates,
        Verb::Delete => table.may_delete,
        Verb::Merge => inserts || updates || table.may_delete,
    };
    match outcome {
        _ if !granted => outcome.code() == Some("42501"),
        Outcome::Rows(1) => true,
        // The row is there already, and nothing may be done to it.
        Outcome::Rows(0) => verb == Verb::OnConflict || verb == Verb::Merge && !updates && !table.may_delete,
        // The wall was checked before the keys and the checks.
        Outcome::Refused { code, .. } if ["23505", "23P01"].contains(&code.as_str()) => verb == Verb::Insert,
        // It was also checked before a trigger that reads the state of a row; a row behind the wall has none.
        Outcome::Refused { code, .. } if code == "23514" => {
            [Verb::Insert, Verb::OnConflict, Verb::Delete].contains(&verb)
        }
        // It is held by rows of the same tenant.
        Outcome::Refused { code, .. } => code == "23503" && verb == Verb::Delete && table.held,
        Outcome::Rows(_) => false,
    }
}

/// A row of no tenant.
fn nobodys(table: &Table, us: &Inhabitant) -> Row {
    let mut row = us.row(table).clone();
    table.scramble(&mut row, &table.tenant);
    for column in table.key() {
        table.scramble(&mut row, column);
    }
    row
}

/// The tenant's own row under each verb. It exists, so for an insert it is deleted first, where allowed.
fn own(table: &Table, verb: Verb, row: &Row) -> Vec<String> {
    match verb {
        Verb::Insert if table.may_delete && !table.held => {
            vec![statement(table, Verb::Delete, row), statement(table, verb, row)]
        }
        Verb::Insert => {
            let mut another = row.clone();
            for column in table.unique().flat_map(|unique| &unique.columns) {
                if *column != table.tenant && !table.is_reference(column) {
                    table.scramble(&mut another, column);
                }
            }
            vec![statement(table, verb, &another)]
        }
        _ => vec![statement(table, verb, row)],
    }
}

/// A statement after this row.
pub(crate) fn statement(table: &Table, verb: Verb, row: &Row) -> String {
    let name = &table.name;
    let record = format!(
        "jsonb_populate_record(NULL::{name}, {}) AS given",
        quoted(&serde_json::to_string(row).expect("a row is JSON"))
    );
    let same = |alias: &str| {
        let columns = table.key().iter();
        let same: Vec<_> = columns
            .map(|column| format!("{alias}.\"{column}\" IS NOT DISTINCT FROM given.\"{column}\""))
            .collect();
        same.join(" AND ")
    };
    // What is not granted is tried on any column.
    let or_any = |columns: Vec<&str>| match columns.is_empty() {
        true => table.key().iter().map(|column| format!("\"{column}\"")).collect(),
        false => columns.into_iter().map(|column| format!("\"{column}\"")).collect::<Vec<_>>(),
    };
    let (inserted, updated) = (or_any(table.insertable()), or_any(table.updatable()));
    let into = inserted.join(", ");
    let values = inserted.iter().map(|column| format!("given.{column}")).collect::<Vec<_>>().join(", ");
    let insert = format!("INSERT INTO {name} ({into}) SELECT {values} FROM {record}");
    let set = |value: &str| {
        let sets: Vec<_> = updated.iter().map(|column| format!("{column} = {value}.{column}")).collect();
        sets.join(", ")
    };
    match verb {
        Verb::Select => format!("SELECT 1 FROM {name} AS this, {record} WHERE {}", same("this")),
        Verb::Insert => insert,
        Verb::Update => {
            format!("UPDATE {name} AS this SET {} FROM {record} WHERE {}", set("this"), same("this"))
        }
        Verb::Delete => format!("DELETE FROM {name} AS this USING {record} WHERE {}", same("this")),
        Verb::OnConflict => {
            // A key that PostgreSQL makes cannot be given, and so cannot clash.
            let given = |column: &String| inserted.contains(&format!("\"{column}\""));
            match table.key().iter().all(given) && !table.updatable().is_empty() {
                true => {
                    let key: Vec<_> = table.key().iter().map(|column| format!("\"{column}\"")).collect();
                    format!("{insert} ON CONFLICT ({}) DO UPDATE SET {}", key.join(", "), set("excluded"))
                }
                false => format!("{insert} ON CONFLICT DO NOTHING"),
            }
        }
        Verb::Merge => {
            let matched = match (table.updatable().is_empty(), table.may_delete) {
                (false, _) => format!("UPDATE SET {}", set("this")),
                (true, true) => "DELETE".to_owned(),
                (true, false) => "DO NOTHING".to_owned(),
            };
            let missing = match table.insertable().is_empty() && matched != "DO NOTHING" {
                true => "DO NOTHING".to_owned(),
                false => format!("INSERT ({into}) VALUES ({values})"),
            };
            format!(
                "MERGE INTO {name} AS this USING {record} ON {} WHEN MATCHED THEN {matched}
                 WHEN NOT MATCHED THEN {missing}",
                same("this")
            )
        }
    }
}

/// Other ways to the same end.
fn further(
    table: &Table,
    verb: Verb,
    viewpoint: Viewpoint,
    us: &Inhabitant,
    them: &Inhabitant,
) -> Vec<String> {
    let Table { name, tenant, side, .. } = table;
    let (our_id, their_id) = (us.id(*side), them.id(*side));
    match (verb, viewpoint) {
        (Verb::Select, Viewpoint::Nobody) => vec![format!("SELECT 1 FROM {name}")],
        (Verb::Select, Viewpoint::Stranger) => {
            vec![format!("SELECT 1 FROM {name} WHERE \"{tenant}\" = '{their_id}'")]
        }
        (Verb::Select, _) => {
            vec![
                format!("SELECT 1 FROM {name} WHERE \"{tenant}\" IS DISTINCT FROM '{our_id}'"),
                format!("SELECT 1 FROM {name} WHERE \"{tenant}\" = '{their_id}' FOR SHARE"),
            ]
        }
        // One's own row is not given away.
        (Verb::Update, _) => vec![format!("UPDATE {name} SET \"{tenant}\" = '{their_id}'")],
        (Verb::Delete, _) => vec![format!("DELETE FROM {name} WHERE \"{tenant}\" = '{their_id}'")],
        _ => Vec::new(),
    }
}

/// The first error of a table, tried by a superuser in a transaction: the cells; the cells again with a second
/// permissive policy; everything denied to the application and the owner; guesses.
pub(crate) async fn breach(connection: &mut PgConnection, world: &World, table: &Table) -> Option<String> {
    if let Some(wrong) = breach_of_cells(connection, world, table, &Viewpoint::ALL).await {
        return Some(wrong);
    }
    let open = format!(
        "SAVEPOINT opened; CREATE POLICY a_mistake ON {} FOR ALL TO atrium_app USING (true) WITH CHECK (true)",
        table.name
    );
    sqlx::raw_sql(AssertSqlSafe(open)).execute(&mut *connection).await.expect("a mistake in a migration");
    let wrong = breach_of_cells(connection, world, table, &Viewpoint::ALL[1..]).await;
    sqlx::raw_sql("ROLLBACK TO SAVEPOINT opened").execute(&mut *connection).await.expect("it is taken back");
    if let Some(wrong) = wrong {
        return Some(format!("with a second permissive policy, {wrong}"));
    }
    for (role, statement, seen) in beyond(table) {
        let outcome = Entry::Savepoint(role).run(connection, "", std::slice::from_ref(&statement)).await;
        let well = if seen { outcome == Outcome::Rows(0) } else { outcome.is_denied() };
        if !well {
            return Some(format!("{role}: {statement}: {outcome}"));
        }
    }
    // Without a tenant, every readable table is empty.
    for name in readable(connection).await {
        let select = format!("SELECT 1 FROM {name}");
        let outcome = Entry::Savepoint("atrium_app").run(connection, "", &[select]).await;
        if !outcome.is_nothing() {
            return Some(format!("{name}, without a tenant: {outcome}"));
        }
    }
    for guess in guesses(world, table) {
        let answers = guess.tried(connection, Entry::Savepoint("atrium_app"), world).await;
        if !guess.is_known() && answers.0 != answers.1 {
            return Some(format!("{}: {}; of nobody: {}", guess.constraint, answers.0, answers.1));
        }
    }
    None
}

/// What the application may read apart from tables: views of any kind.
async fn readable(connection: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT oid::regclass::text FROM pg_class
          WHERE relkind IN ('v', 'm', 'f') AND has_any_column_privilege('atrium_app', oid, 'SELECT')
            AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)",
    )
    .fetch_all(connection)
    .await
    .expect("the catalog can be read")
}

async fn breach_of_cells(
    connection: &mut PgConnection,
    world: &World,
    table: &Table,
    viewpoints: &[Viewpoint],
) -> Option<String> {
    for verb in Verb::ALL {
        for viewpoint in viewpoints {
            let wrong =
                cell(connection, Entry::Savepoint("atrium_app"), world, table, verb, *viewpoint).await;
            if wrong.is_some() {
                return wrong;
            }
        }
    }
    None
}

/// The other roles with their statements, and whether the result is 0 rows and not a denial.
fn beyond(table: &Table) -> Vec<(&'static str, String, bool)> {
    let Table { name, .. } = table;
    let select = format!("SELECT 1 FROM {name}");
    let mut beyond = vec![
        ("atrium_app", format!("TRUNCATE {name}"), false),
        (
            "atrium_app",
            format!(
                "CREATE TRIGGER spy BEFORE INSERT ON {name} EXECUTE FUNCTION suppress_redundant_updates_trigger()"
            ),
            false,
        ),
        ("atrium_app", format!("ALTER TABLE {name} DISABLE ROW LEVEL SECURITY"), false),
        // Even the owner: the wall is forced.
        ("atrium_owner", select.clone(), true),
    ];
    // Denied for its column, for every row.
    if let Some(column) = table.columns.iter().find(|column| !column.may_update) {
        beyond.push(("atrium_app", format!("UPDATE {name} SET \"{0}\" = \"{0}\"", column.name), false));
    }
    if let Some(column) = table.columns.iter().find(|column| !column.may_insert && !column.generated) {
        let column = &column.name;
        let insert = format!("INSERT INTO {name} (\"{column}\") SELECT \"{column}\" FROM {name} WHERE false");
        beyond.push(("atrium_app", insert, false));
    }
    for (role, reads) in [("atrium_relay", table.relay_reads), ("atrium_watcher", table.watcher_reads)] {
        if !reads {
            beyond.push((role, select.clone(), false));
        }
    }
    beyond
}

#[tokio::test]
async fn every_table_holds_against_owners_second_policies_and_guesses() {
    let database = TestDatabase::create().await;
    let mut connection = database.superuser().await;
    let world = World::make(&mut connection).await;
    let mut tx = connection.begin().await.expect("a transaction");
    let mut found = Vec::new();
    for table in &world.tables {
        found.extend(breach(&mut tx, &world, table).await);
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the matrix says how large it was")]
async fn every_verb_on_every_table_for_every_tenant() {
    let database = TestDatabase::create().await;
    let world = World::make(&mut database.superuser().await).await;
    let mut found = Vec::new();
    let mut cells = 0;
    let mut reused = database.app().await;
    for table in &world.tables {
        for verb in Verb::ALL {
            for viewpoint in Viewpoint::ALL {
                let mut fresh = database.app().await;
                for (connection, which) in [(&mut fresh, "fresh"), (&mut reused, "reused")] {
                    cells += 1;
                    let wrong = cell(connection, Entry::Transaction, &world, table, verb, viewpoint).await;
                    found.extend(wrong.map(|wrong| format!("{which} connection, {wrong}")));
                }
                fresh.close().await.expect("a connection can be closed");
            }
        }
    }
    println!(
        "wall matrix: {} tables x {} verbs x {} tenants x 2 connections = {cells} cells",
        world.tables.len(),
        Verb::ALL.len(),
        Viewpoint::ALL.len()
    );
    assert!(found.is_empty(), "{} of {cells} cells are wrong: {found:#?}", found.len());
}
