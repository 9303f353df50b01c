//! A lane plays rounds one after the other on a stage of its own. After a violation the stage is a new one: what is
//! broken must not be blamed on the rounds that come next.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::{Duration, Instant};

use atrium_shared::crash_point::CrashPoint;
use atrium_shared::streams::Inbound;
use futures_util::FutureExt as _;
use redis::AsyncCommands as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::interference::interfere;
use super::invariants::{Before, Loss, check, counted, gone, quiet};
use super::plan::{Fault, Plan};
use super::stage::Stage;
use super::workload::{Created, Resident};

/// How long it is waited for somebody to reach the point. Where nobody does, the fault happens all the same.
const UNTIL_REACHED: Duration = Duration::from_secs(6);
/// Every process looks into the database for news, more often than this.
const DRILL_IS_FORGOTTEN: Duration = Duration::from_secs(30);
const UNTIL_TAKEN: Duration = Duration::from_secs(2);
/// A round that takes longer hangs.
const LONGEST_ROUND: Duration = Duration::from_secs(300);
/// Deleted organizations are gone after the grace, and what a purge waits for.
const UNTIL_GONE: Duration = Duration::from_secs(90);
/// Lines of each log that are shown with a violation.
const LOG_LINES: usize = 60;

/// What came of a round.
pub(super) struct Played {
    pub(super) plan: Plan,
    /// Whether somebody stood at the point.
    pub(super) reached: bool,
    pub(super) took: Duration,
    pub(super) violations: Vec<String>,
    /// How the logs end, where something is wrong.
    pub(super) logs: String,
}

pub(super) struct Lane<'a> {
    binaries: &'a Path,
    stage: Option<Scene>,
}

/// A stage, and who is on it.
struct Scene {
    stage: Stage,
    resident: Option<Resident>,
    /// Organizations that may be deleted.
    deletable: Vec<Created>,
    deleted: Vec<Uuid>,
    poisons: HashSet<Uuid>,
    /// When a drill was taken away: for a while processes may still know it, where Redis forgot to tell them.
    drilled: Option<Instant>,
}

impl<'a> Lane<'a> {
    pub(super) fn new(binaries: &'a Path) -> Self {
        Self { binaries, stage: None }
    }

    pub(super) async fn play(&mut self, plan: Plan) -> Played {
        let start = Instant::now();
        let mut reached = false;
        let outcome = match self.scene().await {
            Ok(scene) => {
                let round = AssertUnwindSafe(scene.play(&plan, &mut reached)).catch_unwind();
                match tokio::time::timeout(LONGEST_ROUND, round).await {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(_)) => Ok(vec!["an answer broke the contract; see above".to_owned()]),
                    Err(_) => Ok(vec![format!("the round was not over after {LONGEST_ROUND:?}")]),
                }
            }
            Err(error) => Err(error),
        };
        let violations = outcome.unwrap_or_else(|error| vec![format!("{error:#}")]);
        let mut logs = String::new();
        if !violations.is_empty()
            && let Some(scene) = self.stage.take()
        {
            logs = scene.stage.last_words(LOG_LINES);
            scene.stage.stop().await;
        }
        Played { plan, reached, took: start.elapsed(), violations, logs }
    }

    /// Ends the lane: what takes longer than a round must have come to its end.
    pub(super) async fn end(&mut self) -> Vec<String> {
        let Some(scene) = self.stage.take() else { return Vec::new() };
        let violations = scene.end().await.unwrap_or_else(|error| vec![format!("{error:#}")]);
        scene.stage.stop().await;
        violations
    }

    async fn scene(&mut self) -> anyhow::Result<&mut Scene> {
        let scene = match self.stage.take() {
            Some(scene) => scene,
            None => Scene {
                stage: Stage::start(self.binaries).await?,
                resident: None,
                deletable: Vec::new(),
                deleted: Vec::new(),
                poisons: HashSet::new(),
                drilled: None,
            },
        };
        Ok(self.stage.insert(scene))
    }
}

impl Scene {
    async fn play(&mut self, plan: &Plan, reached: &mut bool) -> anyhow::Result<Vec<String>> {
        let Self { stage, resident, deletable, deleted, poisons, drilled } = self;
        let resident = match resident.take() {
            Some(settled) if !settled.is_old() => resident.insert(settled),
            _ => {
                // What the former owner made is not for the new one to delete.
                deletable.clear();
                resident.insert(Resident::move_in(&stage.client()).await?)
            }
        };
        let doomed = if plan.deletion { deletable.pop() } else { None };
        let before = Before::look(stage, resident).await?;
        let dump = if plan.fault == Fault::RewindRedis { Some(stage.redis.remember()?) } else { None };
        if let Some(drill) = plan.drill() {
            stage.drill(Some(&drill)).await?;
        }
        let drill_is_known =
            plan.drill.is_some() || drilled.is_some_and(|at| at.elapsed() < DRILL_IS_FORGOTTEN);

        let (org, project) = (resident.org, resident.project);
        let healed = CancellationToken::new();
        stage.points.arm(&stage.passing(plan.point), plan.point, plan.passage).await;
        let fault = async {
            // Whatever happens, nobody stays held, and the presses end.
            let _healed = healed.clone().drop_guard();
            let result = strike(stage, plan, org, project, dump.as_ref(), reached).await;
            stage.points.release();
            result
        };
        let (facts, loss) = tokio::join!(resident.live(plan, stage, doomed.as_ref(), &healed), fault);
        let (facts, loss) = (facts?, loss?);
        poisons.extend(facts.poison);
        deleted.extend(facts.deleted);
        if plan.drill.is_some() {
            stage.drill(None).await?;
            *drilled = Some(Instant::now());
        }

        let ended = stage.services().filter(|service| service.status().is_some());
        let ended: Vec<String> =
            ended.map(|service| format!("{} has ended by itself", service.name())).collect();
        if !ended.is_empty() {
            return Ok(ended);
        }
        let mut violations = quiet(stage, plan).await?;
        if violations.is_empty() {
            violations = check(stage, plan, resident, &facts, &before, loss, drill_is_known, poisons).await?;
        }
        stage.postgres_proxy.heal();
        stage.redis_proxy.heal();
        if plan.fault.orphans_entries() {
            remove_orphans(stage).await?;
        }
        deletable.extend(facts.created);
        let committed: HashSet<Uuid> = sqlx::query_scalar("SELECT id FROM orgs WHERE status = 'COMMITTED'")
            .fetch_all(&mut stage.superuser().await?)
            .await?
            .into_iter()
            .collect();
        deletable.retain(|created| committed.contains(&created.org));
        Ok(violations)
    }

    async fn end(&self) -> anyhow::Result<Vec<String>> {
        let deadline = Instant::now() + UNTIL_GONE;
        let mut superuser = self.stage.superuser().await?;
        loop {
            let left = gone(&mut superuser, &self.deleted).await?;
            if left.is_empty() || Instant::now() >= deadline {
                return Ok(left);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Waits for somebody at the point, and does the fault there.
async fn strike(
    stage: &Stage,
    plan: &Plan,
    org: Uuid,
    project: Uuid,
    dump: Option<&crate::redis::Dump>,
    reached: &mut bool,
) -> anyhow::Result<Option<Loss>> {
    let mut victim = None;
    if matches!(plan.point, CrashPoint::ChatLeaseTaken | CrashPoint::RelayLeaseTaken) {
        // Leases are taken where somebody leaves who has some.
        let [first, second] = [usize::from(plan.deaf_client), usize::from(!plan.deaf_client)];
        for leaving in [&stage.workers[first], &stage.workers[second]] {
            leaving.stop(Duration::from_secs(12)).await;
            stage.start_again(leaving).await?;
            victim = tokio::time::timeout(UNTIL_TAKEN, stage.points.reached()).await.ok();
            if victim.is_some() {
                break;
            }
        }
    } else {
        victim = tokio::time::timeout(UNTIL_REACHED, stage.points.reached()).await.ok();
    }
    *reached = victim.is_some();
    let victim = victim.and_then(|pid| stage.service(pid)).unwrap_or(&stage.workers[0]);
    let counted = counted(&mut stage.superuser().await?, org, project).await?;
    interfere(stage, plan, victim, dump).await?;
    Ok(plan.fault.loses_redis().then(|| Loss { counted, until: Instant::now() }))
}

/// What nobody will ever be given, as an operator removes it.
async fn remove_orphans(stage: &Stage) -> anyhow::Result<()> {
    let mut redis = stage.redis().await?;
    for stream in Inbound::all().map(|stream| stream.to_string()) {
        let () = redis.xtrim(&stream, redis::streams::StreamMaxlen::Equals(0)).await?;
    }
    Ok(())
}
