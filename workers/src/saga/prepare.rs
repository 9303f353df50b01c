//! A step's part outside of PostgreSQL, before the transaction that records it.
//!
//! First the step is written down as begun, so that from then on its compensation is due whatever happens. Then the
//! work is done, with no lock held: others may turn the saga around meanwhile, or take this message over from a process
//! that seems to be dead and is not. So afterwards the saga is asked whether what was made is still wanted; it is
//! removed again where it is not. Who dies before that question leaves a message behind, of which the same is asked, at
//! the latest the one that comes at the deadline.

use atrium_shared::{
    db::{Database, DbError, OrgTx, Principal, in_time},
    ids::{OrgId, SagaId},
    messages::WakeReason,
    organizations,
    saga::{self, SagaStatus, StepStatus},
};

use super::{
    journal::{CONSUMER, Journal, StepRow, next_to_compensate},
    registry::Registry,
    step::{ExternalEffect, Saga, Verdict},
};

/// What was done outside for the step at a position.
#[derive(Default)]
pub(crate) enum Prepared {
    /// Nothing.
    #[default]
    Nothing,
    /// Its way forward.
    Applied(i32, Verdict),
    /// Its way back; or why it did not work.
    Removed(i32, Result<(), String>),
}

/// What is to be done outside, of which step.
enum Work<'a> {
    Apply(i32, &'a dyn ExternalEffect),
    Remove(i32, &'a dyn ExternalEffect),
    /// The saga is over. Somebody who was late may have made again what it took back.
    RemoveRemains(Vec<&'a dyn ExternalEffect>),
}

pub(super) async fn prepare(
    registry: &Registry,
    database: &Database,
    org: OrgId,
    id: SagaId,
    reason: WakeReason,
) -> Result<Prepared, DbError> {
    let Some(work) = in_time(find_work(registry, database, org, id, reason)).await? else {
        return Ok(Prepared::Nothing);
    };
    match work {
        Work::Apply(position, effect) => {
            let verdict = effect.apply(org).await;
            if in_time(is_wanted(database, org, id, position)).await? {
                return Ok(Prepared::Applied(position, verdict));
            }
            tracing::info!(saga = %id, %org, "what a step has made is no longer wanted, and is removed");
            remove_remains(org, effect).await;
        }
        Work::Remove(position, effect) => return Ok(Prepared::Removed(position, effect.remove(org).await)),
        Work::RemoveRemains(effects) => {
            for effect in effects {
                remove_remains(org, effect).await;
            }
        }
    }
    Ok(Prepared::Nothing)
}

async fn remove_remains(org: OrgId, effect: &dyn ExternalEffect) {
    if let Err(error) = effect.remove(org).await {
        tracing::error!(%org, error, "what a saga has taken back may be there again");
    }
}

/// What this message has to do outside. A step whose work begins is recorded as begun.
async fn find_work<'a>(
    registry: &'a Registry,
    database: &Database,
    org: OrgId,
    id: SagaId,
    reason: WakeReason,
) -> Result<Option<Work<'a>>, DbError> {
    let mut tx = begin(database, org).await?;
    let mut journal = Journal::new(&mut tx, id);
    let Some(row) = journal.lock().await? else { return Ok(None) };
    let Some(saga) = registry
        .saga(&row.kind)
        .filter(|saga| saga.steps.iter().any(|step| step.external_effect().is_some()))
    else {
        return Ok(None);
    };
    let work = match row.status {
        // It is about to be turned around.
        SagaStatus::Pending
            if (reason == WakeReason::Deadline || row.overdue)
                && !saga::is_past_pivot(journal.tx, id).await? =>
        {
            None
        }
        SagaStatus::Pending => {
            let steps = journal.plan(saga).await?;
            let Some(step) = steps.iter().find(|step| step.status != StepStatus::Done) else {
                return Ok(None);
            };
            let Some(effect) = external_effect(saga, &step.name) else { return Ok(None) };
            journal.begin(step).await?;
            Some(Work::Apply(step.position, effect))
        }
        SagaStatus::Compensating if reason == WakeReason::Deadline => None,
        SagaStatus::Compensating => {
            let steps = journal.plan(saga).await?;
            let step = next_to_compensate(&steps);
            step.and_then(|(step, _)| Some(Work::Remove(step.position, external_effect(saga, &step.name)?)))
        }
        SagaStatus::Failed => {
            let begun = journal.steps().await?.into_iter().filter(StepRow::is_begun);
            Some(Work::RemoveRemains(begun.filter_map(|step| external_effect(saga, &step.name)).collect()))
        }
        SagaStatus::Committed => None,
    };
    journal.write().await?;
    tx.commit().await?;
    Ok(work)
}

/// Whether the saga still waits for what was made for this step.
async fn is_wanted(database: &Database, org: OrgId, id: SagaId, position: i32) -> Result<bool, DbError> {
    let mut tx = begin(database, org).await?;
    let mut journal = Journal::new(&mut tx, id);
    let Some(row) = journal.lock().await? else { return Ok(false) };
    match row.status {
        SagaStatus::Pending => {
            Ok(journal.steps().await?.iter().any(|step| step.position == position && step.is_begun()))
        }
        // Another worker was faster and made the same thing; it is wanted unless the organization is being deleted.
        SagaStatus::Committed => organizations::is_kept(&mut tx).await,
        SagaStatus::Compensating | SagaStatus::Failed => Ok(false),
    }
}

async fn begin(database: &Database, org: OrgId) -> Result<OrgTx, DbError> {
    database.org_tx(&Principal::System(CONSUMER), org).await
}

fn external_effect<'a>(saga: &'a Saga, name: &str) -> Option<&'a dyn ExternalEffect> {
    saga.steps.iter().find(|step| step.name() == name)?.external_effect()
}
