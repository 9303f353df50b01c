//! The check at start that a process's database role cannot bypass the tenant wall.

use anyhow::{Context as _, bail};
use sqlx::PgConnection;

/// What a role should be able to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// One tenant at a time: `atrium_app`.
    Tenant,
    /// All tenants, on the named tables only: the relay and the watcher.
    Narrow(&'static [&'static str]),
}

impl Reach {
    /// The tables that the relay's role may use.
    pub const RELAY: Self = Self::Narrow(&["outbox", "inbox", "relay_leases"]);
}

/// Fails when the connection's role is a superuser, may bypass row-level security, owns a relation, can become another
/// role, or may use a table that it should not: one without row-level security, or, for a narrow role, any but its own.
///
/// # Errors
/// Names what the role could do and which role to use instead.
pub async fn check_role(connection: &mut PgConnection, reach: Reach) -> anyhow::Result<()> {
    let migrated =
        sqlx::query_scalar!(r#"SELECT to_regclass('public.config_heads') IS NOT NULL AS "migrated!""#)
            .fetch_one(&mut *connection)
            .await
            .context("cannot look into the database")?;
    if !migrated {
        bail!("the database has no tables of Atrium: run atrium-migrate first");
    }
    let role = sqlx::query!(
        r#"SELECT current_user::text AS "name!", me.rolsuper AS "is_superuser!", me.rolbypassrls AS "bypasses_rls!",
                (SELECT string_agg(other.rolname, ', ') FROM pg_roles other
                  WHERE other.oid <> me.oid AND pg_has_role(me.oid, other.oid, 'MEMBER')) AS may_become,
                (SELECT string_agg(relation.relname, ', ') FROM pg_class relation WHERE relation.relowner = me.oid)
                    AS owns
           FROM pg_roles me WHERE me.rolname = current_user"#
    )
    .fetch_one(&mut *connection)
    .await
    .context("cannot look up what this process's database role may do")?;

    let could = if role.is_superuser {
        "is a superuser".to_owned()
    } else if role.bypasses_rls {
        "has BYPASSRLS".to_owned()
    } else if let Some(relations) = role.owns {
        format!("owns {relations}")
    } else if let Some(others) = role.may_become {
        format!("may become {others}")
    } else {
        return check_reach(connection, &role.name, reach).await;
    };
    let role = role.name;
    bail!(
        "the database role {role} {could}, so it could pass the tenant wall; \
         connect as a role made by atrium-migrate (atrium_app, atrium_relay or atrium_watcher)"
    )
}

async fn check_reach(connection: &mut PgConnection, role: &str, reach: Reach) -> anyhow::Result<()> {
    let unexpected = match reach {
        // Every table that this role may use must have row-level security, forced for its owner as well.
        Reach::Tenant => {
            sqlx::query_scalar!(
                "SELECT string_agg(relname, ', ') FROM pg_class
                  WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND relnamespace = 'public'::regnamespace
                    AND NOT (relrowsecurity AND relforcerowsecurity)
                    AND (has_any_column_privilege(oid, 'SELECT, INSERT, UPDATE')
                         OR has_table_privilege(oid, 'DELETE, TRUNCATE'))"
            )
            .fetch_one(connection)
            .await?
        }
        Reach::Narrow(tables) => {
            sqlx::query_scalar!(
                "SELECT string_agg(relname, ', ') FROM pg_class
                  WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND relnamespace = 'public'::regnamespace
                    AND relname <> ALL ($1::text[])
                    AND (has_any_column_privilege(oid, 'SELECT, INSERT, UPDATE')
                         OR has_table_privilege(oid, 'DELETE, TRUNCATE'))",
                tables as &[&str]
            )
            .fetch_one(connection)
            .await?
        }
    };
    match (unexpected, reach) {
        (None, _) => Ok(()),
        (Some(tables), Reach::Tenant) => {
            bail!("the database role {role} may touch {tables}, which has no wall; run atrium-migrate")
        }
        (Some(tables), Reach::Narrow(own)) => bail!(
            "the database role {role} may touch {tables}, but this connection is for {} only; \
             connect as the role that atrium-migrate made for it",
            own.join(" and ")
        ),
    }
}
