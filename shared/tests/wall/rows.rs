//! A row of every table for each of two tenants, generated from the catalog: a new table is covered immediately.
//!
//! References are followed, in order; other values come from the column's type, or from the words in a CHECK. If a
//! CHECK rejects the row, the columns it names are tried in all combinations.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use uuid::Uuid;

use crate::catalog::OF_NOBODY;

/// Values that cannot be generated, or that are better than a generated one: table, column, value.
const SAMPLES: &[(&str, &str, &str)] = &[
    // Past its grace: only then may its row be deleted.
    ("orgs", "status", "'DELETING'"),
    ("orgs", "delete_at", "now() - interval '1 hour'"),
    ("orgs", "deletion_id", "gen_random_uuid()"),
    ("api_keys", "scopes", "'{config:read}'"),
];

/// One row, by column, as PostgreSQL writes it in JSON.
pub(crate) type Row = serde_json::Map<String, Value>;

/// Whose a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Org,
    User,
}

impl From<String> for Side {
    fn from(setting: String) -> Self {
        if setting == "org" { Self::Org } else { Self::User }
    }
}

#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: String,
    not_null: bool,
    has_default: bool,
    /// By PostgreSQL alone.
    pub(crate) generated: bool,
    pub(crate) may_insert: bool,
    pub(crate) may_update: bool,
}

#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Constraint {
    pub(crate) name: String,
    /// `p`, `u`, `x`, `f` or `c`, as in the catalog.
    kind: String,
    pub(crate) columns: Vec<String>,
    pub(crate) target: Option<String>,
    target_columns: Option<Vec<String>>,
    /// What happens to the rows when their target goes: `c` for CASCADE.
    on_delete: String,
    definition: String,
}

/// A table, and the rights on it.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Table {
    pub(crate) name: String,
    /// The column that the guard compares, and with what.
    pub(crate) tenant: String,
    #[sqlx(try_from = "String")]
    pub(crate) side: Side,
    pub(crate) may_select: bool,
    pub(crate) may_delete: bool,
    /// Whether these see any column of it.
    pub(crate) relay_reads: bool,
    pub(crate) watcher_reads: bool,
    #[sqlx(skip)]
    pub(crate) columns: Vec<Column>,
    #[sqlx(skip)]
    constraints: Vec<Constraint>,
    /// Whether rows elsewhere keep a row from being deleted.
    #[sqlx(skip)]
    pub(crate) held: bool,
}

impl Table {
    /// The columns that identify a row.
    pub(crate) fn key(&self) -> &[String] {
        let key = |kind| self.constraints.iter().find(|constraint| constraint.kind == kind);
        let key = key("p").or_else(|| key("u"));
        &key.unwrap_or_else(|| panic!("{}: neither a primary nor a unique key", self.name)).columns
    }

    /// The keys, and what else must be there once only.
    pub(crate) fn unique(&self) -> impl Iterator<Item = &Constraint> {
        self.constraints.iter().filter(|constraint| ["p", "u", "x"].contains(&constraint.kind.as_str()))
    }

    pub(crate) fn references(&self) -> impl Iterator<Item = &Constraint> {
        self.constraints.iter().filter(|constraint| constraint.kind == "f")
    }

    pub(crate) fn is_reference(&self, column: &str) -> bool {
        self.references().any(|reference| reference.columns.iter().any(|other| other == column))
    }

    /// The column that this one refers to by this constraint.
    pub(crate) fn referred(&self, constraint: &str, column: &str) -> Option<&String> {
        let reference = self.references().find(|reference| reference.name == constraint)?;
        let at = reference.columns.iter().position(|name| name == column)?;
        reference.target_columns.as_ref()?.get(at)
    }

    pub(crate) fn insertable(&self) -> Vec<&str> {
        self.columns.iter().filter(|column| column.may_insert).map(|column| column.name.as_str()).collect()
    }

    pub(crate) fn updatable(&self) -> Vec<&str> {
        self.columns.iter().filter(|column| column.may_update).map(|column| column.name.as_str()).collect()
    }

    /// Another value in this column, of no tenant.
    pub(crate) fn scramble(&self, row: &mut Row, column: &str) {
        let kind = &self.columns.iter().find(|there| there.name == column).expect("the column exists").kind;
        let random = rand::random::<u128>();
        let value = match kind.as_str() {
            "uuid" => Uuid::from_u128(random).to_string().into(),
            "text" => format!("{random:032x}").into(),
            "bytea" => format!("\\x{random:032x}{random:032x}").into(),
            "int8" | "int4" => u32::try_from(random % 1_000_000_000).unwrap_or(1).into(),
            _ => return,
        };
        row.insert(column.to_owned(), value);
    }
}

/// All tables, in the order of their references, and a row of each for either tenant.
pub(crate) struct World {
    pub(crate) tables: Vec<Table>,
    pub(crate) tenants: [Inhabitant; 2],
}

/// A tenant, and its rows by table.
pub(crate) struct Inhabitant {
    pub(crate) org: Uuid,
    pub(crate) user: Uuid,
    pub(crate) rows: BTreeMap<String, Row>,
}

impl World {
    /// Makes the rows as the superuser, and keeps them.
    pub(crate) async fn make(connection: &mut PgConnection) -> Self {
        let tables = in_order(tables(connection).await);
        let mut tenants = [(), ()].map(|()| Inhabitant {
            org: Uuid::now_v7(),
            user: Uuid::now_v7(),
            rows: BTreeMap::new(),
        });
        let mut tx = connection.begin().await.expect("a transaction");
        for tenant in &mut tenants {
            for table in &tables {
                let row = insert_sample(&mut tx, table, tenant).await;
                tenant.rows.insert(table.name.clone(), row);
            }
        }
        tx.commit().await.expect("a commit");
        Self { tables, tenants }
    }
}

impl Inhabitant {
    pub(crate) fn row(&self, table: &Table) -> &Row {
        &self.rows[&table.name]
    }

    pub(crate) fn id(&self, side: Side) -> Uuid {
        match side {
            Side::Org => self.org,
            Side::User => self.user,
        }
    }
}

async fn tables(connection: &mut PgConnection) -> Vec<Table> {
    // A table without row-level security, which another test rejects, still has an owner.
    let mut tables: Vec<Table> = sqlx::query_as(
        "SELECT relname::text AS name, coalesce(guard[1], CASE WHEN of_org THEN 'org_id' ELSE 'user_id' END) AS tenant,
                coalesce(guard[2], CASE WHEN of_org THEN 'org' ELSE 'user' END) AS side,
                has_table_privilege('atrium_app', oid, 'SELECT') AS may_select,
                has_table_privilege('atrium_app', oid, 'DELETE') AS may_delete,
                has_any_column_privilege('atrium_relay', oid, 'SELECT') AS relay_reads,
                has_any_column_privilege('atrium_watcher', oid, 'SELECT') AS watcher_reads
           FROM pg_class,
                LATERAL (SELECT regexp_match((SELECT pg_get_expr(polwithcheck, polrelid) FROM pg_policy
                                               WHERE polrelid = pg_class.oid AND polname = 'guard'),
                                             '(\\w+) = .*app\\.(org|user)_id'),
                                EXISTS (SELECT FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'org_id'))
                     AS wall (guard, of_org)
          WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace AND relname <> '_sqlx_migrations'
            AND relname <> ALL ($1)",
    )
    .bind(OF_NOBODY)
    .fetch_all(&mut *connection)
    .await
    .expect("the catalog can be read");
    for table in &mut tables {
        let name = &table.name;
        table.columns = sqlx::query_as(
            "SELECT attname::text AS name, typname::text AS kind, attnotnull AS not_null, atthasdef AS has_default,
                    attidentity <> '' OR attgenerated <> '' AS generated,
                    attidentity = '' AND attgenerated = ''
                        AND has_column_privilege('atrium_app', attrelid, attnum, 'INSERT') AS may_insert,
                    has_column_privilege('atrium_app', attrelid, attnum, 'UPDATE') AS may_update
               FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
              WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        )
        .bind(name)
        .fetch_all(&mut *connection)
        .await
        .expect("the catalog can be read");
        table.constraints = sqlx::query_as(
            "SELECT conname::text AS name, contype::text AS kind, pg_get_constraintdef(con.oid) AS definition,
                    confdeltype::text AS on_delete,
                    ARRAY(SELECT attname::text FROM unnest(conkey) WITH ORDINALITY AS part (number, at)
                            JOIN pg_attribute ON attrelid = conrelid AND attnum = number ORDER BY at) AS columns,
                    nullif(confrelid, 0)::regclass::text AS target,
                    ARRAY(SELECT attname::text FROM unnest(confkey) WITH ORDINALITY AS part (number, at)
                            JOIN pg_attribute ON attrelid = confrelid AND attnum = number ORDER BY at)
                        AS target_columns
               FROM pg_constraint AS con WHERE conrelid = $1::text::regclass ORDER BY conname",
        )
        .bind(name)
        .fetch_all(&mut *connection)
        .await
        .expect("the catalog can be read");
        let tenant = table.columns.iter().any(|column| column.name == table.tenant);
        assert!(tenant, "{name}: no column says whose a row is");
    }
    let holding: BTreeSet<String> = tables
        .iter()
        .flat_map(Table::references)
        .filter(|reference| reference.on_delete != "c")
        .filter_map(|reference| reference.target.clone())
        .collect();
    for table in &mut tables {
        table.held = holding.contains(&table.name);
    }
    tables
}

/// What is referred to comes first.
fn in_order(mut tables: Vec<Table>) -> Vec<Table> {
    let mut ordered: Vec<Table> = Vec::new();
    while !tables.is_empty() {
        let ready = tables.iter().position(|table| {
            table
                .references()
                .filter_map(|reference| reference.target.as_ref())
                .all(|target| *target == table.name || ordered.iter().any(|before| before.name == *target))
        });
        let ready = ready.unwrap_or_else(|| panic!("the references go in a circle: {tables:#?}"));
        ordered.push(tables.remove(ready));
    }
    ordered
}

async fn insert_sample(connection: &mut PgConnection, table: &Table, tenant: &Inhabitant) -> Row {
    let mut chosen: BTreeMap<&str, String> = BTreeMap::new();
    for column in &table.columns {
        let needed = column.not_null && !column.has_default && !column.generated;
        let sample = SAMPLES.iter().any(|(there, name, _)| (*there, *name) == (&table.name, &column.name));
        if needed || sample || column.name == table.tenant {
            let first = candidates(table, column, tenant).swap_remove(0);
            chosen.insert(&column.name, first);
        }
    }
    let mut refused = BTreeSet::new();
    loop {
        let error = match try_insert(connection, table, &chosen, true).await {
            Ok(row) => return row,
            Err(error) => error,
        };
        let database = error.as_database_error();
        let check = database.and_then(|error| error.constraint()).unwrap_or_default().to_owned();
        let constraint = table.constraints.iter().find(|there| there.kind == "c" && there.name == check);
        let stuck =
            || panic!("no row can be made for {}: {error}; name values in SAMPLES ({chosen:?})", table.name);
        let Some(constraint) = constraint else { stuck() };
        if !refused.insert(check) {
            stuck();
        }
        // All combinations of the columns in the CHECK; the first that it accepts is kept.
        let columns: Vec<&Column> =
            table.columns.iter().filter(|column| constraint.columns.contains(&column.name)).collect();
        let choices: Vec<Vec<String>> =
            columns.iter().map(|column| candidates(table, column, tenant)).collect();
        let combinations: usize = choices.iter().map(Vec::len).product();
        for number in 0..combinations.min(500) {
            let mut rest = number;
            let mut attempt = chosen.clone();
            for (column, choices) in columns.iter().zip(&choices) {
                attempt.insert(&column.name, choices[rest % choices.len()].clone());
                rest /= choices.len();
            }
            let refusal = try_insert(connection, table, &attempt, false).await.err();
            let still = refusal.as_ref().and_then(sqlx::Error::as_database_error);
            if still.and_then(|error| error.constraint()) != Some(&constraint.name) {
                chosen = attempt;
                break;
            }
        }
    }
}

/// Possible values of a column, the likeliest first.
fn candidates(table: &Table, column: &Column, tenant: &Inhabitant) -> Vec<String> {
    if column.name == table.tenant {
        return vec![quoted(&tenant.id(table.side).to_string())];
    }
    let mut candidates: Vec<String> = SAMPLES
        .iter()
        .filter(|(there, name, _)| (*there, *name) == (&table.name, &column.name))
        .map(|(_, _, value)| (*value).to_owned())
        .collect();
    let mut referred = false;
    for reference in table.references() {
        let Some(at) = reference.columns.iter().position(|name| *name == column.name) else { continue };
        let target = reference.target.as_ref().and_then(|target| tenant.rows.get(target));
        let name = reference.target_columns.as_ref().and_then(|names| names.get(at));
        if let Some(value) = target.zip(name).and_then(|(row, name)| row.get(name)) {
            candidates.push(quoted(value.as_str().map_or_else(|| value.to_string(), str::to_owned).as_str()));
            referred = true;
        }
    }
    if !referred {
        for check in table.constraints.iter().filter(|constraint| constraint.kind == "c") {
            if check.columns.contains(&column.name) {
                let words = check.definition.split('\'').skip(1).step_by(2);
                candidates.extend(words.filter(|_| column.kind == "text").map(quoted));
            }
        }
        candidates.push(
            match column.kind.as_str() {
                "uuid" => "gen_random_uuid()",
                "text" => "md5(random()::text)",
                "bytea" => "sha256(gen_random_uuid()::text::bytea)",
                "jsonb" => "'{}'",
                "timestamptz" => "now() + interval '1 minute'",
                "bool" => "false",
                "_text" | "_uuid" => "'{}'",
                // Different for the two tenants: a clash with an own row would reveal nothing.
                "int8" | "int4" => "1 + floor(random() * 1000000)::int",
                "inet" => "'127.0.0.1'",
                _ => "1",
            }
            .to_owned(),
        );
    }
    if !column.not_null {
        candidates.push("NULL".to_owned());
    }
    candidates
}

async fn try_insert(
    connection: &mut PgConnection,
    table: &Table,
    values: &BTreeMap<&str, String>,
    keep: bool,
) -> sqlx::Result<Row> {
    let columns: Vec<String> = values.keys().map(|name| format!("\"{name}\"")).collect();
    let values: Vec<&str> = values.values().map(String::as_str).collect();
    let statement = format!(
        "INSERT INTO {table} ({}) VALUES ({}) RETURNING to_jsonb({table})",
        columns.join(", "),
        values.join(", "),
        table = table.name,
    );
    let mut savepoint = connection.begin().await?;
    let row: sqlx::types::Json<Row> =
        sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut *savepoint).await?;
    if keep {
        savepoint.commit().await?;
    } else {
        savepoint.rollback().await?;
    }
    Ok(row.0)
}

/// A text as a literal.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
