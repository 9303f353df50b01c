//! Applies and removes the effects of steps outside of PostgreSQL, before the transaction that records them.
//!
//! First the step is recorded as begun, so that it is compensated if the saga fails. Then the effect is applied without
//! a lock. Meanwhile the saga may be canceled, or another process may take over this message from one that seems to be
//! dead and is not. Therefore the saga's status is read again afterwards, and the effect is removed if it is no longer
//! wanted. If a process dies before this check, another message makes the same check, at the latest the one that is
//! delivered at the deadline.

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

/// The result of preparing the step at a position.
#[derive(Default)]
pub(crate) enum Prepared {
    /// No effect was applied or removed.
    #[default]
    Nothing,
    /// The effect was applied, with this result.
    Applied(i32, Verdict),
    /// The effect was removed, or its removal failed.
    Removed(i32, Result<(), String>),
}

/// The work to do outside of PostgreSQL, and for which step.
enum Work<'a> {
    Apply(i32, &'a dyn ExternalEffect),
    Remove(i32, &'a dyn ExternalEffect),
    /// The saga has ended. A late process may have applied an effect again after its compensation.
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
        tracing::error!(%org, error, "an effect that a saga has compensated may exist again");
    }
}

/// Returns the work that this message has to do outside of PostgreSQL. A step whose effect is to be applied is recorded
/// as begun.
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
        // The saga is about to be compensated.
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
            let started = journal.steps().await?.into_iter().filter(StepRow::is_begun);
            Some(Work::RemoveRemains(started.filter_map(|step| external_effect(saga, &step.name)).collect()))
        }
        SagaStatus::Committed => None,
    };
    journal.write().await?;
    tx.commit().await?;
    Ok(work)
}

/// Whether the effect that was applied for this step is still wanted.
async fn is_wanted(database: &Database, org: OrgId, id: SagaId, position: i32) -> Result<bool, DbError> {
    let mut tx = begin(database, org).await?;
    let mut journal = Journal::new(&mut tx, id);
    let Some(row) = journal.lock().await? else { return Ok(false) };
    match row.status {
        SagaStatus::Pending => {
            Ok(journal.steps().await?.iter().any(|step| step.position == position && step.is_begun()))
        }
        // Another worker was faster and applied the same effect, which is wanted unless the organization is being
        // deleted.
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
