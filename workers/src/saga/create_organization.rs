//! Creating an organization. The request has stored it as PENDING, with its founder as the owner; these steps make
//! it usable, or make it as if it had never been asked for.

use atrium_shared::{
    db::{DbError, OrgTx},
    saga::CREATE_ORGANIZATION,
};
use futures_util::future::BoxFuture;

use super::{
    namespace::{self, Namespace},
    step::{Context, ExternalEffect, Failure, Saga, Step, Verdict},
};
use crate::isolation::Isolation;

pub(super) fn saga(isolation: &Isolation) -> Saga {
    Saga {
        kind: CREATE_ORGANIZATION,
        steps: vec![
            Box::new(Reserve),
            Box::new(DefaultConfiguration),
            Box::new(IsolationGate(Namespace::of(isolation))),
            Box::new(Commit),
        ],
    }
}

/// Takes the slug, which is unique among all organizations.
struct Reserve;

impl Step for Reserve {
    fn name(&self) -> &'static str {
        "reserve"
    }

    fn run<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<Verdict, DbError>> {
        Box::pin(async move {
            let org = context.tx.org();
            let reserved = sqlx::query(
                "INSERT INTO org_slugs (slug, org_id) SELECT slug, id FROM orgs WHERE id = $1 AND status = 'PENDING'",
            )
            .bind(org)
            .execute(context.tx.conn())
            .await
            .map_err(DbError::from);
            match reserved {
                Ok(_) => Ok(Verdict::Done(None)),
                Err(DbError::Constraint(name)) if name == "org_slugs_pkey" => Ok(Verdict::Fail(Failure {
                    code: "slug_taken",
                    detail: "the name's short form was taken at the same moment; try again".to_owned(),
                })),
                Err(error) => Err(error),
            }
        })
    }

    /// The first step is compensated last: it also ends the organization, which nobody is a member of from then on.
    fn compensate<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<(), DbError>> {
        Box::pin(async move {
            let org = context.tx.org();
            for statement in [
                "DELETE FROM org_slugs WHERE org_id = $1",
                "DELETE FROM members WHERE org_id = $1",
                // What an import brought. The configuration's head takes values and history with it.
                "DELETE FROM config_heads WHERE org_id = $1",
                "DELETE FROM projects WHERE org_id = $1",
                "UPDATE orgs SET status = 'FAILED', version = version + 1, updated_at = now()
                  WHERE id = $1 AND status = 'PENDING'",
            ] {
                sqlx::query(statement).bind(org).execute(context.tx.conn()).await?;
            }
            Ok(())
        })
    }
}

/// Begins the organization's configuration at revision 1, on top of the platform's defaults; unless an import brought
/// one.
struct DefaultConfiguration;

impl Step for DefaultConfiguration {
    fn name(&self) -> &'static str {
        "default-configuration"
    }

    fn is_inline(&self) -> bool {
        true
    }

    fn run<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<Verdict, DbError>> {
        Box::pin(async move {
            let org = context.tx.org();
            sqlx::query(
                "INSERT INTO config_heads (org_id, revision) VALUES ($1, 1)
                 ON CONFLICT ON CONSTRAINT config_heads_pkey DO NOTHING",
            )
            .bind(org)
            .execute(context.tx.conn())
            .await?;
            Ok(Verdict::Done(None))
        })
    }

    fn compensate<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<(), DbError>> {
        Box::pin(async move {
            let org = context.tx.org();
            sqlx::query("DELETE FROM config_heads WHERE org_id = $1")
                .bind(org)
                .execute(context.tx.conn())
                .await?;
            Ok(())
        })
    }
}

/// Lets through only what is isolated in the cluster, where the deployment asks for that.
struct IsolationGate(Option<Namespace>);

impl Step for IsolationGate {
    fn name(&self) -> &'static str {
        "isolation-gate"
    }

    fn external_effect(&self) -> Option<&dyn ExternalEffect> {
        self.0.as_ref().map(|namespace| namespace as &dyn ExternalEffect)
    }

    fn is_inline(&self) -> bool {
        self.0.is_none()
    }

    fn run<'a>(&'a self, _context: Context<'a>) -> BoxFuture<'a, Result<Verdict, DbError>> {
        let detail = if self.0.is_some() { namespace::MADE } else { namespace::NOT_ASKED_FOR };
        Box::pin(async { Ok(Verdict::Done(Some(detail.to_owned()))) })
    }

    fn compensate<'a>(&'a self, _context: Context<'a>) -> BoxFuture<'a, Result<(), DbError>> {
        Box::pin(async { Ok(()) })
    }
}

/// Opens the organization.
struct Commit;

impl Step for Commit {
    fn name(&self) -> &'static str {
        "commit"
    }

    fn is_inline(&self) -> bool {
        true
    }

    fn run<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<Verdict, DbError>> {
        Box::pin(async move {
            if change_status(context.tx, "PENDING", "COMMITTED").await? {
                return Ok(Verdict::Done(None));
            }
            Ok(Verdict::Fail(Failure {
                code: "organization_not_pending",
                detail: "the organization is no longer pending".to_owned(),
            }))
        })
    }

    fn compensate<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<(), DbError>> {
        Box::pin(async move { change_status(context.tx, "COMMITTED", "PENDING").await.map(drop) })
    }
}

async fn change_status(tx: &mut OrgTx, from: &str, to: &str) -> Result<bool, DbError> {
    let org = tx.org();
    let changed = sqlx::query(
        "UPDATE orgs SET status = $3, version = version + 1, updated_at = now() WHERE id = $1 AND status = $2",
    )
    .bind(org)
    .bind(from)
    .bind(to)
    .execute(tx.conn())
    .await?;
    Ok(changed.rows_affected() == 1)
}
