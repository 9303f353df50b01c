//! Interrupted requests: the future is dropped while a statement runs, or the task panics. The next user of the
//! connection finds no trace of it.

use std::{future::poll_fn, pin::Pin, task::Poll, time::Duration};

use atrium_shared::{
    db::{Database, OrgTx},
    ids::{OrgId, ProjectId},
};
use sqlx::PgConnection;
use tokio::sync::oneshot;

use crate::tenants::{SYSTEM, Tenant, Two, two};

/// Longer than anything here takes on a busy machine; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// The next transaction sees its own rows, the interrupted one is rolled back, and the connection is the same: the pool
/// has no other.
async fn nothing_is_left(two: &Two, server: i32) {
    let mut tx = two.db.user_tx(two.theirs.user).await.expect("a transaction for a user");
    assert_eq!(self::server(tx.conn()).await, server, "the same connection");
    let orgs: Vec<OrgId> =
        sqlx::query_scalar("SELECT id FROM orgs").fetch_all(tx.conn()).await.expect("rows");
    assert_eq!(orgs, [two.theirs.org]);
    assert!(names(tx.conn()).await.is_empty());
    drop(tx);
    let mut tx = two.db.org_tx(&two.theirs.member(), two.theirs.org).await.expect("a member's transaction");
    let projects: Vec<ProjectId> =
        sqlx::query_scalar("SELECT id FROM projects").fetch_all(tx.conn()).await.expect("rows");
    assert_eq!(projects, [two.theirs.project]);
    drop(tx);
    let mut tx = two.db.org_tx(&SYSTEM, two.ours.org).await.expect("a transaction");
    assert_eq!(names(tx.conn()).await, ["one"], "nothing of the change was kept");
    drop(tx);
    // Outside of any transaction the connection has no tenant.
    let idle: i64 = sqlx::query_scalar("SELECT count(*) FROM projects")
        .fetch_one(&mut two.database.app().await)
        .await
        .expect("a count");
    assert_eq!(idle, 0);
}

async fn names(connection: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar("SELECT name FROM projects").fetch_all(connection).await.expect("rows")
}

async fn server(connection: &mut PgConnection) -> i32 {
    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(connection).await.expect("a process id")
}

/// A request that has changed something, and is about to do more.
async fn half_done(db: &Database, tenant: Tenant) -> (OrgTx, i32) {
    let mut tx = db.org_tx(&tenant.member(), tenant.org).await.expect("a member's transaction");
    sqlx::query("UPDATE projects SET name = 'half done'").execute(tx.conn()).await.expect("an update");
    let server = server(tx.conn()).await;
    (tx, server)
}

#[tokio::test]
async fn a_future_dropped_while_its_statement_runs_leaves_nothing() {
    let two = two().await;
    let (db, ours) = (two.db.clone(), two.ours);
    let (running, begun) = oneshot::channel();
    let request = tokio::spawn(async move {
        let (mut tx, server) = half_done(&db, ours).await;
        running.send(server).expect("somebody waits");
        sqlx::query("SELECT pg_sleep(0.7)").execute(tx.conn()).await.expect("nobody is left to see it");
    });
    let server = begun.await.expect("it runs");
    // The server is in the middle of the statement.
    let mut watcher = two.database.superuser().await;
    let asleep = async {
        while !sqlx::query_scalar::<_, bool>(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep')",
        )
        .bind(server)
        .fetch_one(&mut watcher)
        .await
        .expect("what the server does")
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asleep).await.expect("the statement runs");
    request.abort();
    assert!(request.await.expect_err("it was dropped").is_cancelled());
    // Until the statement has ended, no other transaction gets the connection.
    let free = async {
        while two.db.user_tx(two.theirs.user).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.expect("the connection comes back");
    nothing_is_left(&two, server).await;
}

#[tokio::test]
async fn a_future_dropped_at_any_await_point_leaves_nothing() {
    let two = two().await;
    let server = half_done(&two.db, two.ours).await.1;
    let mut superuser = two.database.superuser().await;
    // One more step each time, until it gets to its end.
    for steps in 1.. {
        let mut request = Box::pin(async {
            let (tx, _) = half_done(&two.db, two.ours).await;
            drop(tx);
        });
        let finished = polled(&mut request, steps).await;
        drop(request);
        outside_of_any_transaction(&mut superuser, server).await;
        nothing_is_left(&two, server).await;
        if finished {
            break;
        }
    }
}

/// Returns when the connection is idle. One that is left inside of a transaction is idle, too, until the server ends
/// it: under its next user.
async fn outside_of_any_transaction(superuser: &mut PgConnection, server: i32) {
    let idle = async {
        loop {
            let state: Option<String> =
                sqlx::query_scalar("SELECT state FROM pg_stat_activity WHERE pid = $1")
                    .bind(server)
                    .fetch_optional(&mut *superuser)
                    .await
                    .expect("what the server does");
            match state.as_deref() {
                Some("idle") => break,
                Some(_) => tokio::task::yield_now().await,
                None => panic!("the server has ended the connection"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, idle).await.expect("the transaction ends");
}

/// Polls a future this number of times; answers whether it has ended.
async fn polled<F: Future<Output = ()> + Unpin>(future: &mut F, mut times: usize) -> bool {
    poll_fn(|context| {
        if Pin::new(&mut *future).poll(context).is_ready() {
            return Poll::Ready(true);
        }
        times -= 1;
        if times == 0 { Poll::Ready(false) } else { Poll::Pending }
    })
    .await
}

#[tokio::test]
async fn a_task_that_panics_inside_its_transaction_leaves_nothing() {
    let two = two().await;
    let (db, ours) = (two.db.clone(), two.ours);
    let (told, server) = oneshot::channel();
    let request = tokio::spawn(async move {
        let (tx, server) = half_done(&db, ours).await;
        told.send(server).expect("somebody waits");
        // Still held when the task unwinds.
        let _tx = tx;
        panic!("a defect in a handler");
    });
    assert!(request.await.expect_err("it panicked").is_panic());
    nothing_is_left(&two, server.await.expect("it began")).await;
}
