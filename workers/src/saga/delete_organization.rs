//! Deletes an organization. The request has closed it. These steps wait for the end of the grace period, during which
//! the deletion can be canceled, and then remove all data of the organization. The pivot is the end of the grace
//! period: the steps after it cannot be undone, and are retried until they succeed.

use std::{collections::BTreeMap, time::Duration};

use atrium_shared::{
    db::{DbError, OrgTx},
    ids::{OrgId, SagaId, UserId},
    messages::{DeletionCertificate, DeletionSearch},
    organizations::{self, Certificate},
    saga::SagaKind,
    streams::Redis,
};
use futures_util::future::BoxFuture;
use sqlx::AssertSqlSafe;

use super::{
    namespace::{self, Namespace, Released},
    step::{Context, ExternalEffect, Failure, Saga, Step, Verdict},
    traces,
};
use crate::{
    isolation::Isolation,
    timings::{PURGE_DELAY, PURGE_TIMEOUT},
};

pub(super) fn saga(redis: &Redis, isolation: &Isolation) -> Saga {
    Saga {
        kind: SagaKind::DeleteOrganization,
        steps: vec![
            Box::new(Grace),
            Box::new(Forget { redis: redis.clone() }),
            Box::new(ReleaseNamespace(Namespace::of(isolation).map(Released))),
            Box::new(Purge { redis: redis.clone() }),
        ],
    }
}

const FORGET: &str = "forget";

/// How long to wait before a step is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Waits until the deletion can no longer be canceled.
struct Grace;

impl Step for Grace {
    fn name(&self) -> &'static str {
        "grace"
    }

    fn run<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<Verdict, DbError>> {
        Box::pin(async move {
            let remaining = organizations::remaining_grace(context.tx, context.saga).await?;
            Ok(match remaining {
                None => Verdict::Fail(Failure {
                    code: "canceled",
                    detail: "the deletion was canceled".to_owned(),
                }),
                Some(seconds) if seconds > 0.0 => Verdict::RetryAfter(
                    // Waits slightly longer, so that the grace period is over at the next try.
                    Duration::from_secs_f64(seconds) + Duration::from_millis(10),
                    "the deletion can be canceled until the grace is over".to_owned(),
                ),
                Some(_) => Verdict::Done(None),
            })
        })
    }

    fn compensate<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<(), DbError>> {
        Box::pin(async move { organizations::reopen(context.tx, context.saga, false).await.map(drop) })
    }
}

/// Removes the organization from the caches of processes and from Redis.
struct Forget {
    redis: Redis,
}

impl Step for Forget {
    fn name(&self) -> &'static str {
        FORGET
    }

    fn is_retriable(&self) -> bool {
        true
    }

    fn run<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<Verdict, DbError>> {
        Box::pin(async move {
            let org = context.tx.org();
            // At revision 0, every process drops the organization's configuration and does not load it again.
            sqlx::query!("UPDATE config_heads SET revision = 0 WHERE org_id = $1", org as OrgId)
                .execute(context.tx.conn())
                .await?;
            Ok(match traces::remove(&self.redis, org).await {
                Ok(_) => Verdict::Done(None),
                Err(error) => retry_search(&error),
            })
        })
    }

    fn compensate<'a>(&'a self, _context: Context<'a>) -> BoxFuture<'a, Result<(), DbError>> {
        no_compensation()
    }
}

/// Removes the organization's namespace, and waits until the cluster has removed it.
struct ReleaseNamespace(Option<Released>);

const RELEASE_NAMESPACE: &str = "release-namespace";

impl Step for ReleaseNamespace {
    fn name(&self) -> &'static str {
        RELEASE_NAMESPACE
    }

    fn is_retriable(&self) -> bool {
        true
    }

    fn external_effect(&self) -> Option<&dyn ExternalEffect> {
        self.0.as_ref().map(|released| released as &dyn ExternalEffect)
    }

    /// The certificate contains this detail.
    fn run<'a>(&'a self, _context: Context<'a>) -> BoxFuture<'a, Result<Verdict, DbError>> {
        let detail = if self.0.is_some() { namespace::REMOVED } else { namespace::NONE_TO_REMOVE };
        Box::pin(async { Ok(Verdict::Done(Some(detail.to_owned()))) })
    }

    fn compensate<'a>(&'a self, _context: Context<'a>) -> BoxFuture<'a, Result<(), DbError>> {
        no_compensation()
    }
}

/// Deletes all remaining rows, and stores the certificate.
struct Purge {
    redis: Redis,
}

impl Step for Purge {
    fn name(&self) -> &'static str {
        "purge"
    }

    fn is_retriable(&self) -> bool {
        true
    }

    fn run<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<Verdict, DbError>> {
        Box::pin(async move {
            let Context { tx, saga, .. } = context;
            let org = tx.org();
            let deletion = sqlx::query!(
                r#"SELECT sagas.created_by AS "requester: UserId", sagas.created_at AS requested_at,
                        $3 - EXTRACT(EPOCH FROM clock_timestamp() - step.finished_at)::float8 AS "wait!"
                   FROM sagas JOIN saga_steps step ON step.org_id = sagas.org_id AND step.saga_id = sagas.id
                  WHERE sagas.org_id = $1 AND sagas.id = $2 AND step.name = $4"#,
                org as OrgId,
                saga as SagaId,
                PURGE_DELAY.as_secs_f64(),
                FORGET
            )
            .fetch_one(tx.conn())
            .await?;
            if deletion.wait > 0.0 {
                let detail = "waiting until every process has forgotten the organization".to_owned();
                return Ok(Verdict::RetryAfter(Duration::from_secs_f64(deletion.wait), detail));
            }
            // A deletion that an older release planned lacks this step, because that release created no namespaces.
            let namespaces = sqlx::query_scalar!(
                "SELECT detail FROM saga_steps WHERE org_id = $1 AND saga_id = $2 AND name = $3",
                org as OrgId,
                saga as SagaId,
                RELEASE_NAMESPACE
            )
            .fetch_optional(tx.conn())
            .await?
            .flatten();
            let search = match traces::remove(&self.redis, org).await {
                Ok(search) if search.found == 0 => search,
                Ok(search) => {
                    let detail = format!("{} traces were still on their way out of Redis", search.found);
                    return Ok(Verdict::RetryAfter(RETRY_PAUSE, detail));
                }
                Err(error) => return Ok(retry_search(&error)),
            };

            let timeout = PURGE_TIMEOUT.as_millis().to_string();
            sqlx::query!("SELECT set_config('statement_timeout', $1, true)", timeout)
                .fetch_one(tx.conn())
                .await?;
            let tables = tables(tx).await?;
            let removed = count(tx, &tables).await?;
            // Foreign keys delete everything else.
            organizations::erase(tx).await?;
            let left: i64 = count(tx, &tables).await?.values().sum();
            if left != 0 {
                let detail = format!("{left} rows were left, so nothing was removed");
                return Ok(Verdict::RetryAfter(RETRY_PAUSE, detail));
            }
            let certificate = DeletionCertificate {
                rows_removed: removed,
                search: DeletionSearch {
                    tables: tables.len(),
                    rows_found: left,
                    redis_keys: search.keys,
                    redis_traces_found: search.found,
                },
                namespaces: namespaces.unwrap_or_else(|| namespace::NONE_TO_REMOVE.to_owned()),
            };
            Certificate::store(tx, saga, deletion.requester, deletion.requested_at, certificate).await?;
            Ok(Verdict::Erased)
        })
    }

    fn compensate<'a>(&'a self, _context: Context<'a>) -> BoxFuture<'a, Result<(), DbError>> {
        no_compensation()
    }
}

/// A table with rows of organizations, and its column with the organization id; both names are quoted for use in SQL.
struct Table {
    name: String,
    org_column: String,
}

/// Lists all such tables from the catalog, so that tables of later releases are included.
async fn tables(tx: &mut OrgTx) -> Result<Vec<Table>, DbError> {
    Ok(sqlx::query_as!(
        Table,
        r#"SELECT attrelid::regclass::text AS "name!", quote_ident(attname) AS "org_column!" FROM pg_attribute
           JOIN pg_class ON pg_class.oid = attrelid
          WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace AND NOT attisdropped
            AND (attname = 'org_id' OR (relname = 'orgs' AND attname = 'id'))
            AND has_column_privilege(attrelid, attnum, 'SELECT')
          ORDER BY 1"#
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Counts the rows of the transaction's organization in each table. The result contains only tables with any.
async fn count(tx: &mut OrgTx, tables: &[Table]) -> Result<BTreeMap<String, i64>, DbError> {
    let org = tx.org();
    let mut counts = BTreeMap::new();
    for Table { name, org_column } in tables {
        // This query is not checked at compile time, because the tables are only known at run time. Both names are
        // quoted by the catalog.
        let query = format!("SELECT count(*) FROM {name} WHERE {org_column} = $1");
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(query)).bind(org).fetch_one(tx.conn()).await?;
        if rows > 0 {
            counts.insert(name.clone(), rows);
        }
    }
    Ok(counts)
}

fn retry_search(error: &redis::RedisError) -> Verdict {
    tracing::warn!(%error, "Redis cannot be searched for traces of an organization; trying again");
    Verdict::RetryAfter(RETRY_PAUSE, "Redis could not be searched; trying again".to_owned())
}

/// A step after the pivot is never compensated.
fn no_compensation<'a>() -> BoxFuture<'a, Result<(), DbError>> {
    Box::pin(async { Ok(()) })
}
