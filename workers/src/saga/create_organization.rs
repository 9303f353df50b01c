//! Creates an organization. The request has stored it as PENDING, with its founder as the owner. These steps open it;
//! their compensations leave it FAILED and empty.

use atrium_shared::{db::DbError, ids::OrgId, organizations, saga::SagaKind};
use futures_util::future::BoxFuture;

use super::{
    namespace::{self, Namespace},
    step::{Context, ExternalEffect, Failure, Saga, Step, Verdict},
};
use crate::isolation::Isolation;

pub(super) fn saga(isolation: &Isolation) -> Saga {
    Saga {
        kind: SagaKind::CreateOrganization,
        steps: vec![
            Box::new(Reserve),
            Box::new(DefaultConfiguration),
            Box::new(IsolationGate(Namespace::of(isolation))),
            Box::new(Commit),
        ],
    }
}

/// Reserves the slug, which is unique among all organizations.
struct Reserve;

impl Step for Reserve {
    fn name(&self) -> &'static str {
        "reserve"
    }

    fn run<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<Verdict, DbError>> {
        Box::pin(async move {
            if organizations::reserve_slug(context.tx).await? {
                return Ok(Verdict::Done(None));
            }
            Ok(Verdict::Fail(Failure {
                code: "slug_taken",
                detail: "the name's short form was taken at the same moment; try again".to_owned(),
            }))
        })
    }

    /// The first step is compensated last, so this also ends the organization and removes its members.
    fn compensate<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<(), DbError>> {
        Box::pin(organizations::abandon(context.tx))
    }
}

/// Creates the organization's configuration, at revision 1 and without values, unless an import has created one.
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
            sqlx::query!(
                "INSERT INTO config_heads (org_id, revision) VALUES ($1, 1)
                 ON CONFLICT ON CONSTRAINT config_heads_pkey DO NOTHING",
                org as OrgId
            )
            .execute(context.tx.conn())
            .await?;
            Ok(Verdict::Done(None))
        })
    }

    fn compensate<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<(), DbError>> {
        Box::pin(async move {
            let org = context.tx.org();
            sqlx::query!("DELETE FROM config_heads WHERE org_id = $1", org as OrgId)
                .execute(context.tx.conn())
                .await?;
            Ok(())
        })
    }
}

/// Isolates the organization in the cluster, if the deployment requires that.
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
        let detail = if self.0.is_some() { namespace::CREATED } else { namespace::NOT_REQUIRED };
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
            if organizations::open(context.tx).await? {
                return Ok(Verdict::Done(None));
            }
            Ok(Verdict::Fail(Failure {
                code: "organization_not_pending",
                detail: "the organization is no longer pending".to_owned(),
            }))
        })
    }

    fn compensate<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<(), DbError>> {
        Box::pin(async move { organizations::withdraw(context.tx).await.map(drop) })
    }
}
