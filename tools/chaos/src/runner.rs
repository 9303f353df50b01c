//! Runs rounds one after the other on a deployment of its own. After a violation the deployment is replaced, so that
//! what is broken does not count against the next rounds.

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

use crate::deployment::Deployment;
use crate::faults::inject;
use crate::invariants::{Before, Loss, check, counted, gone, wait_until_idle};
use crate::plan::{Fault, Plan};
use crate::workload::{Created, Tenant};

/// How long to wait until a process reaches the point. If none does, the fault is injected all the same.
const UNTIL_REACHED: Duration = Duration::from_secs(6);
/// Every process reads the configuration from the database more often than this.
const DRILL_EXPIRY: Duration = Duration::from_secs(30);
const UNTIL_LEASE_TAKEN: Duration = Duration::from_secs(2);
/// A round that takes longer has failed.
const MAX_ROUND: Duration = Duration::from_secs(300);
/// Deleted organizations are purged after the grace period and the purge's own waits.
const UNTIL_GONE: Duration = Duration::from_secs(90);
/// Lines of each log that are shown with a violation.
const LOG_LINES: usize = 60;

/// The result of a round.
pub(crate) struct RoundResult {
    pub(crate) plan: Plan,
    /// Whether a process reached the crash point.
    pub(crate) reached: bool,
    pub(crate) took: Duration,
    pub(crate) violations: Vec<String>,
    /// The ends of the logs, if there are violations.
    pub(crate) logs: String,
}

/// Runs rounds; starts a deployment when it has none.
pub(crate) struct Runner<'a> {
    binaries: &'a Path,
    state: Option<State>,
}

/// A deployment, and what is known about its data from earlier rounds.
struct State {
    deployment: Deployment,
    tenant: Option<Tenant>,
    /// Organizations that may be deleted.
    deletable: Vec<Created>,
    deleted: Vec<Uuid>,
    poisons: HashSet<Uuid>,
    /// When a drill was removed: processes may apply it a little longer, if Redis lost the announcement.
    drilled: Option<Instant>,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(binaries: &'a Path) -> Self {
        Self { binaries, state: None }
    }

    pub(crate) async fn run(&mut self, plan: Plan) -> RoundResult {
        let start = Instant::now();
        let mut reached = false;
        let outcome = match self.state().await {
            Ok(state) => {
                let round = AssertUnwindSafe(state.run(&plan, &mut reached)).catch_unwind();
                match tokio::time::timeout(MAX_ROUND, round).await {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(_)) => Ok(vec!["an answer violated the contract; see above".to_owned()]),
                    Err(_) => Ok(vec![format!("the round did not end within {MAX_ROUND:?}")]),
                }
            }
            Err(error) => Err(error),
        };
        let violations = outcome.unwrap_or_else(|error| vec![format!("{error:#}")]);
        let mut logs = String::new();
        if !violations.is_empty()
            && let Some(state) = self.state.take()
        {
            logs = state.deployment.log_tail(LOG_LINES);
            state.deployment.stop().await;
        }
        RoundResult { plan, reached, took: start.elapsed(), violations, logs }
    }

    /// Stops the deployment, after what takes longer than a round: deletions have to be complete.
    pub(crate) async fn end(&mut self) -> Vec<String> {
        let Some(state) = self.state.take() else { return Vec::new() };
        let violations = state.end().await.unwrap_or_else(|error| vec![format!("{error:#}")]);
        state.deployment.stop().await;
        violations
    }

    async fn state(&mut self) -> anyhow::Result<&mut State> {
        let state = match self.state.take() {
            Some(state) => state,
            None => State {
                deployment: Deployment::start(self.binaries).await?,
                tenant: None,
                deletable: Vec::new(),
                deleted: Vec::new(),
                poisons: HashSet::new(),
                drilled: None,
            },
        };
        Ok(self.state.insert(state))
    }
}

impl State {
    async fn run(&mut self, plan: &Plan, reached: &mut bool) -> anyhow::Result<Vec<String>> {
        let Self { deployment, tenant, deletable, deleted, poisons, drilled } = self;
        let tenant = match tenant.take() {
            Some(current) if !current.is_old() => tenant.insert(current),
            _ => {
                // The new owner cannot delete what the former one created.
                deletable.clear();
                tenant.insert(Tenant::create(&deployment.client()).await?)
            }
        };
        let to_delete = if plan.deletion { deletable.pop() } else { None };
        let before = Before::read(deployment, tenant).await?;
        let dump = if plan.fault == Fault::RewindRedis { Some(deployment.redis.copy_data()?) } else { None };
        if let Some(drill) = plan.drill() {
            deployment.drill(Some(&drill)).await?;
        }
        let drill_may_apply = plan.drill.is_some() || drilled.is_some_and(|at| at.elapsed() < DRILL_EXPIRY);

        let (org, project) = (tenant.org, tenant.project);
        let healed = CancellationToken::new();
        deployment.points.arm(&deployment.reaching(plan.point), plan.point, plan.passage).await;
        let fault = async {
            // In every outcome, no process stays halted, and the users stop pressing.
            let _healed = healed.clone().drop_guard();
            let result = inject_at_point(deployment, plan, org, project, dump.as_ref(), reached).await;
            deployment.points.release();
            result
        };
        let (facts, loss) = tokio::join!(tenant.run(plan, deployment, to_delete.as_ref(), &healed), fault);
        let (facts, loss) = (facts?, loss?);
        poisons.extend(facts.poison);
        deleted.extend(facts.deleted);
        if plan.drill.is_some() {
            deployment.drill(None).await?;
            *drilled = Some(Instant::now());
        }

        let ended = deployment.services().filter(|service| service.status().is_some());
        let ended: Vec<String> =
            ended.map(|service| format!("{} ended unexpectedly", service.name())).collect();
        if !ended.is_empty() {
            return Ok(ended);
        }
        let mut violations = wait_until_idle(deployment, plan).await?;
        if violations.is_empty() {
            violations =
                check(deployment, plan, tenant, &facts, &before, loss, drill_may_apply, poisons).await?;
        }
        deployment.postgres_proxy.heal();
        deployment.redis_proxy.heal();
        if plan.fault.orphans_entries() {
            remove_orphans(deployment).await?;
        }
        deletable.extend(facts.created);
        let committed: HashSet<Uuid> = sqlx::query_scalar("SELECT id FROM orgs WHERE status = 'COMMITTED'")
            .fetch_all(&mut deployment.superuser().await?)
            .await?
            .into_iter()
            .collect();
        deletable.retain(|created| committed.contains(&created.org));
        Ok(violations)
    }

    async fn end(&self) -> anyhow::Result<Vec<String>> {
        let deadline = Instant::now() + UNTIL_GONE;
        let mut superuser = self.deployment.superuser().await?;
        loop {
            let left = gone(&mut superuser, &self.deleted).await?;
            if left.is_empty() || Instant::now() >= deadline {
                return Ok(left);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Waits until a process is held at the point, and injects the fault there.
async fn inject_at_point(
    deployment: &Deployment,
    plan: &Plan,
    org: Uuid,
    project: Uuid,
    dump: Option<&atrium_servers::redis::Dump>,
    reached: &mut bool,
) -> anyhow::Result<Option<Loss>> {
    let mut victim = None;
    if matches!(plan.point, CrashPoint::ChatLeaseTaken | CrashPoint::RelayLeaseTaken) {
        // A lease changes hands when its holder stops.
        let [first, second] = [usize::from(plan.client_unaware), usize::from(!plan.client_unaware)];
        for stopping in [&deployment.workers[first], &deployment.workers[second]] {
            stopping.stop(Duration::from_secs(12)).await;
            deployment.respawn(stopping).await?;
            victim = tokio::time::timeout(UNTIL_LEASE_TAKEN, deployment.points.reached()).await.ok();
            if victim.is_some() {
                break;
            }
        }
    } else {
        victim = tokio::time::timeout(UNTIL_REACHED, deployment.points.reached()).await.ok();
    }
    *reached = victim.is_some();
    let victim = victim.and_then(|pid| deployment.service(pid)).unwrap_or(&deployment.workers[0]);
    let counted = counted(&mut deployment.superuser().await?, org, project).await?;
    inject(deployment, plan, victim, dump).await?;
    Ok(plan.fault.loses_redis().then(|| Loss { counted, until: Instant::now() }))
}

/// Removes the entries that no consumer will ever read, as an operator would.
async fn remove_orphans(deployment: &Deployment) -> anyhow::Result<()> {
    let mut redis = deployment.redis().await?;
    for stream in Inbound::all().map(|stream| stream.to_string()) {
        let () = redis.xtrim(&stream, redis::streams::StreamMaxlen::Equals(0)).await?;
    }
    Ok(())
}
