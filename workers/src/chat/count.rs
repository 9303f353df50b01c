//! Records a batch in PostgreSQL: actions are counted once, even if they are delivered repeatedly, and notices are
//! marked as consumed after they are published.

use std::collections::BTreeSet;

use atrium_shared::{
    db::{Database, DbError, OrgTx, Principal},
    ids::{OrgId, ProjectId},
    streams::StreamId,
};

use super::batch::{Batch, Item, ItemKind};
use crate::consumer::Message;

const PRINCIPAL: Principal = Principal::System(CONSUMER);
const CONSUMER: &str = "chat";

/// Counts the actions above each project's cursor, and moves the cursors, before anything is published. Entries that
/// are delivered again after a crash between the two are below the cursor, so they are only published.
pub(super) async fn count_actions(
    database: &Database,
    batch: &mut Batch,
    history: &str,
) -> Result<(), DbError> {
    for (org, items) in &mut batch.items {
        let projects: BTreeSet<ProjectId> = items.iter().map(|item| item.project).collect();
        let mut tx = database.org_tx(&PRINCIPAL, *org).await?;
        for project in projects {
            if !count_project(&mut tx, project, items, history).await? {
                // No client can see its events.
                items.iter_mut().filter(|item| item.project == project).for_each(|item| item.event = None);
            }
        }
        tx.commit().await?;
    }
    Ok(())
}

/// Returns false if the project does not exist, or its organization is closed.
async fn count_project(
    tx: &mut OrgTx,
    project: ProjectId,
    items: &[Item],
    history: &str,
) -> Result<bool, DbError> {
    let org = tx.org();
    // The lock of the project's row serializes counting, also with a predecessor that was paused and resumes. The
    // cursor is read in a second statement, because the snapshot of this one may be older than the lock.
    let locked = sqlx::query!(
        "SELECT FROM projects JOIN orgs ON orgs.id = projects.org_id AND orgs.status = 'COMMITTED'
          WHERE projects.org_id = $1 AND projects.id = $2
            FOR NO KEY UPDATE OF projects",
        org as OrgId,
        project as ProjectId
    )
    .fetch_optional(tx.conn())
    .await?;
    if locked.is_none() {
        return Ok(false);
    }
    let cursor = sqlx::query!(
        "SELECT history, entry_ms, entry_seq FROM chat_cursors WHERE org_id = $1 AND project_id = $2",
        org as OrgId,
        project as ProjectId
    )
    .fetch_optional(tx.conn())
    .await?;
    // The cursor has a different history if Redis lost the stream that its entry ids belong to. Then nothing of the
    // present stream was counted.
    let counted_to = cursor.filter(|cursor| cursor.history == history).map(|cursor| StreamId {
        ms: cursor.entry_ms.cast_unsigned(),
        seq: cursor.entry_seq.cast_unsigned(),
    });

    let mut last_counted = None;
    let mut names: Vec<&str> = Vec::new();
    for item in items.iter().filter(|item| item.project == project && Some(item.id) > counted_to) {
        if let ItemKind::Action(action) = item.kind {
            names.push(action.name());
            last_counted = last_counted.max(Some(item.id));
        }
    }
    let Some(last_counted) = last_counted else { return Ok(true) };
    sqlx::query!(
        "WITH counted AS (
             INSERT INTO chat_counters AS counter (org_id, project_id, action, count)
             SELECT $1, $2, action, count(*) FROM unnest($3::text[]) AS batch (action) GROUP BY action ORDER BY action
             ON CONFLICT ON CONSTRAINT chat_counters_pkey DO UPDATE SET count = counter.count + excluded.count)
         INSERT INTO chat_cursors (org_id, project_id, history, entry_ms, entry_seq) VALUES ($1, $2, $4, $5, $6)
         ON CONFLICT ON CONSTRAINT chat_cursors_pkey
         DO UPDATE SET history = excluded.history, entry_ms = excluded.entry_ms, entry_seq = excluded.entry_seq",
        org as OrgId,
        project as ProjectId,
        &names as &[&str],
        history,
        last_counted.ms.cast_signed(),
        last_counted.seq.cast_signed()
    )
    .execute(tx.conn())
    .await?;
    Ok(true)
}

/// Marks the batch's notices as consumed, after they were published. A crash between the two publishes a notice again,
/// which is harmless; in the opposite order it could be lost.
pub(super) async fn settle_notices(database: &Database, batch: &Batch) -> Result<(), DbError> {
    for (org, items) in &batch.items {
        let notices: Vec<&Message> = items.iter().filter_map(Item::notice).collect();
        if notices.is_empty() {
            continue;
        }
        let mut tx = database.org_tx(&PRINCIPAL, *org).await?;
        for message in notices {
            if message.enter_inbox(&mut tx, CONSUMER).await? {
                message.mark_consumed(&mut tx).await?;
            }
        }
        tx.commit().await?;
    }
    Ok(())
}

/// Marks a malformed notice as a dead letter.
pub(super) async fn give_up(database: &Database, notice: &Message, reason: &str) -> Result<(), DbError> {
    let mut tx = database.org_tx(&PRINCIPAL, notice.org()).await?;
    notice.mark_dead(&mut tx, reason).await?;
    tx.commit().await
}
